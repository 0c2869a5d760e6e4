"""Random views: geometry and colors by hand, which depend only on seed, epoch and row."""

from __future__ import annotations

import math
import pickle
import random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmfusion import registry
from mmfusion.images.augmentations import BASIC, DERMOSCOPY, MRI, RandomView, row_rng
from mmfusion.images.opening import eval_image

NAMES = ["basic", "dermoscopy", "mri", "report"]
DRAWING: dict[str, Any] = {"interpolation": "bicubic", "fill": (124, 116, 104)}


class Fixed(random.Random):
    """Draws the same position of every range."""

    def __init__(self, place: float) -> None:
        super().__init__(0)
        self.place = place

    def random(self) -> float:
        return self.place


def smooth(width: int = 120, height: int = 90) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, size=(6, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def difference(a: Image.Image, b: Image.Image) -> float:
    return np.abs(np.asarray(a, dtype=float) - np.asarray(b, dtype=float)).mean()


def test_a_view_without_change_is_what_evaluation_shows() -> None:
    view = RandomView(scale=(1, 1), degrees=0, shift=0)(smooth(), 30, random.Random(0), **DRAWING)
    assert difference(view, eval_image(smooth(), 30)) < 1.5


@pytest.mark.parametrize("size", [30, 90, 180])
@pytest.mark.parametrize(("place", "turned"), [(0.0, Image.Transpose.ROTATE_270), (1.0, Image.Transpose.ROTATE_90)])
def test_a_quarter_turn(size: int, place: float, turned: Image.Transpose) -> None:
    """In both directions; reduced, unchanged and enlarged."""
    view = RandomView(scale=(1, 1), degrees=90, shift=0)(smooth(), size, Fixed(place), **DRAWING)
    expected = eval_image(smooth(), size, interpolation="bilinear").transpose(turned)
    assert difference(view, expected) < 1.5 < 10 < difference(view, eval_image(smooth(), size))


def test_scale_and_place() -> None:
    """The smallest area, a quarter, in the upper left corner."""
    view = RandomView(scale=(0.25, 1), degrees=0)(smooth(), 30, Fixed(0.0), **DRAWING)
    expected = smooth().resize((30, 30), Image.Resampling.BICUBIC, box=(0, 0, 45, 45))
    assert difference(view, expected) < 1.5


def test_flips() -> None:
    views = [RandomView((1, 1), 0, shift=0, **flips) for flips in ({}, {"flip_x": True}, {"flip_y": True})]
    plain, left, up = (view(smooth(), 30, Fixed(0.0), **DRAWING) for view in views)
    assert difference(left, plain.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) < 0.5
    assert difference(up, plain.transpose(Image.Transpose.FLIP_TOP_BOTTOM)) < 0.5


def test_colors_by_hand() -> None:
    """Half the brightness, contrast and saturation of a single color."""
    red = Image.new("RGB", (8, 8), (180, 60, 60))
    one = {"scale": (1, 1), "degrees": 0}
    dim = RandomView(**one, brightness=0.5)(red, 8, Fixed(0.0), **DRAWING)
    assert dim.getpixel((4, 4)) == (90, 30, 30)
    pale = RandomView(**one, saturation=0.5)(red, 8, Fixed(0.0), **DRAWING)
    assert pale.getpixel((4, 4)) == (140, 80, 80)
    halves = Image.fromarray(np.repeat(np.uint8([[50] * 4 + [150] * 4] * 8)[..., None], 3, axis=2))
    flat = np.asarray(RandomView(**one, contrast=0.5)(halves, 8, Fixed(0.0), **DRAWING))
    assert flat[4, 1].tolist() == [75] * 3 and flat[4, 6].tolist() == [125] * 3
    # a third of the circle: each channel moves to the next one
    turned = RandomView(**one, hue=1 / 3)(Image.new("RGB", (8, 8), (180, 60, 30)), 8, Fixed(1.0), **DRAWING)
    assert np.abs(np.subtract(turned.getpixel((4, 4)), (30, 180, 60))).max() <= 1


def test_what_lies_outside_is_filled() -> None:
    white = Image.new("RGB", (60, 60), (255, 255, 255))
    view = RandomView(scale=(1, 1), degrees=45)(white, 30, Fixed(1.0), **DRAWING)
    assert view.getpixel((0, 0)) == (124, 116, 104) and view.getpixel((15, 15)) == (255, 255, 255)
    filled = (np.asarray(view) != 255).any(axis=2).mean()
    assert filled == pytest.approx(3 - 2 * math.sqrt(2), abs=0.03)  # a square less its regular octagon


@pytest.mark.parametrize("name", NAMES)
def test_seed_epoch_and_row_decide(name: str) -> None:
    augment = pickle.loads(pickle.dumps(registry.get("augmentation", name)))

    def drawn(*key: Any) -> np.ndarray:
        return np.asarray(augment(smooth(), 24, row_rng(*key), **DRAWING))

    first = drawn(0, 0, "a")
    assert first.shape == (24, 24, 3) and np.array_equal(first, drawn(0, 0, "a"))
    for other in ((1, 0, "a"), (0, 1, "a"), (0, 0, "b")):
        assert not np.array_equal(first, drawn(*other))


@pytest.mark.parametrize("view", [BASIC, MRI])
def test_left_stays_left(view: RandomView) -> None:
    """An image whose left half is bright."""
    half = Image.fromarray(np.repeat(np.uint8([[200] * 50 + [20] * 50] * 100)[..., None], 3, axis=2))
    for epoch in range(30):
        pixels = np.asarray(view(half, 32, row_rng(0, epoch, "a"), interpolation="bicubic", fill=(20, 20, 20)))
        assert pixels[:, :16].mean() > 1.3 * pixels[:, 16:].mean()


@pytest.mark.parametrize("size", [(3, 2), (400, 30), (64, 64)])
@pytest.mark.parametrize("view", [BASIC, DERMOSCOPY, MRI])
def test_images_of_any_shape(view: RandomView, size: tuple[int, int]) -> None:
    """White stays white without filling and color changes."""
    still = RandomView(view.scale, view.degrees, view.stretch, view.shift, view.flip_x, view.flip_y)
    for epoch in range(10):
        rng = row_rng(0, epoch, "a")
        white = still(Image.new("RGB", size, (255,) * 3), 16, rng, interpolation="bicubic", fill=(255,) * 3)
        assert np.asarray(white).min() >= 253
