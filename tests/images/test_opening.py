"""Conversion of all kinds of images to tensors."""

from __future__ import annotations

import io
import random
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from mmfusion.images.augmentations import report_augmentation, row_rng
from mmfusion.images.opening import eval_image, open_image, to_tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _picture(width: int = 40, height: int = 30, seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, size=(6, 8, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("size", [(200, 150), (150, 200), (97, 333)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_eval_is_resize_and_centre_crop(size: tuple[int, int], interpolation: str) -> None:
    image = _picture(*size)
    reference = v2.Compose([v2.Resize(80, interpolation=v2.InterpolationMode(interpolation)), v2.CenterCrop(64)])
    ours = np.asarray(eval_image(image, 64, crop_pct=0.8, interpolation=interpolation), dtype=float)
    theirs = np.asarray(reference(image), dtype=float)
    # the reference rounds the resized side and the crop to whole pixels
    assert np.abs(ours - theirs).mean() < 2.0


def test_eval_of_the_exact_size_changes_nothing() -> None:
    image = _picture(64, 64)
    np.testing.assert_array_equal(np.asarray(eval_image(image, 64)), np.asarray(image))


def test_to_tensor_is_torchvision_normalisation() -> None:
    image = _picture()
    reference = v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)])
    ours = to_tensor(image, MEAN, STD)
    assert ours.is_contiguous() and ours.dtype == torch.float32
    torch.testing.assert_close(ours, reference(image), atol=1e-6, rtol=1e-6)


def test_grey_rgba_palette_and_cmyk_become_rgb(tmp_path: Path) -> None:
    image = _picture()
    grey = image.convert("L")
    opened = open_image(grey)
    np.testing.assert_array_equal(np.asarray(opened), np.repeat(np.asarray(grey)[:, :, None], 3, axis=2))
    rgba = image.copy()
    rgba.putalpha(128)
    np.testing.assert_array_equal(np.asarray(open_image(rgba, window=None)), np.asarray(image))
    on_white = 255 - (255 - np.asarray(image, float)) * 128 / 255
    assert np.abs(np.asarray(open_image(rgba)) - on_white).max() <= 1
    for mode, suffix in (("L", "png"), ("P", "png"), ("1", "png"), ("LA", "png"), ("CMYK", "jpg")):
        image.convert(mode).save(tmp_path / f"a.{suffix}")
        assert open_image(tmp_path / f"a.{suffix}").mode == "RGB"


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_is_stretched_over_its_own_range(tmp_path: Path, suffix: str) -> None:
    values = np.linspace(1000, 5095, 12).round().astype(np.uint16).reshape(3, 4)  # a 12-bit range within 16 bits
    Image.fromarray(values).save(tmp_path / f"a.{suffix}")
    expected = np.rint((values - 1000.0) / 4095 * 255)
    opened = np.asarray(open_image(tmp_path / f"a.{suffix}"))
    np.testing.assert_array_equal(opened, np.repeat(expected[:, :, None], 3, axis=2))
    np.testing.assert_array_equal(np.asarray(open_image(values)), opened)
    with pytest.raises(ValueError, match="the image is blank"):
        open_image(np.full((3, 3), 700, np.uint16))


def test_float_tiff(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0.0, 0.5], [0.25, 1.0]], np.float32)).save(tmp_path / "a.tif")
    assert np.asarray(open_image(tmp_path / "a.tif"))[:, :, 0].tolist() == [[0, 128], [64, 255]]


def test_arrays() -> None:
    array = np.asarray(_picture())
    np.testing.assert_array_equal(np.asarray(open_image(array)), array)
    np.testing.assert_array_equal(np.asarray(open_image(array[:, :, :1])), array[:, :, :1].repeat(3, axis=2))
    for wrong in (array.astype(complex), array[:0], array.transpose(2, 0, 1), array[0, 0]):
        with pytest.raises(TypeError, match=r"An image array must be \(H, W\)"):
            open_image(wrong)


def test_what_is_no_image_is_named() -> None:
    wrongs: tuple[tuple[Any, str], ...] = (([[1, 2]], "list"), (b"abc", "bytes"), (torch.zeros(3, 4, 4), "Tensor"))
    for wrong, kind in wrongs:
        with pytest.raises(TypeError, match=f"a NumPy array, not a {kind}"):
            open_image(wrong)


def test_a_tiff_that_is_not_read_says_which_are(tmp_path: Path) -> None:
    # one pixel of 64-bit floats: width, height, bits, compression, photometric, place, size, kind of samples
    tags = [(256, 4, 1), (257, 4, 1), (258, 3, 64), (259, 3, 1), (262, 3, 1), (273, 4, 8), (279, 4, 8), (339, 3, 3)]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    pixel = struct.pack("<d", 0.5)
    content = b"II*\0" + struct.pack("<I", 16) + pixel + struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.tif cannot be decoded: it is an unsupported TIFF .* save it with 8"):
        open_image(tmp_path / "a.tif")


def test_exif_orientation_is_honoured(tmp_path: Path) -> None:
    image = _picture()
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    image.save(tmp_path / "a.png", exif=exif)
    expected = np.asarray(image.transpose(Image.Transpose.ROTATE_270))
    np.testing.assert_array_equal(np.asarray(open_image(tmp_path / "a.png")), expected)


def test_draft_decoding_keeps_enough_pixels(tmp_path: Path) -> None:
    image = _picture(1200, 900)
    image.save(tmp_path / "a.jpg", quality=95)
    small = open_image(tmp_path / "a.jpg", size=64)
    assert small.size == (300, 225)
    assert open_image(tmp_path / "a.jpg").size == (1200, 900)
    difference = np.asarray(eval_image(small, 64), float) - np.asarray(eval_image(image, 64), float)
    assert np.abs(difference).mean() < 2.0


def test_damaged_and_missing_files_are_named(tmp_path: Path) -> None:
    _picture(400, 300).save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("half.jpg", "text.jpg", "empty.png"):
        with pytest.raises(ValueError, match=f"{name} cannot be decoded"):
            open_image(tmp_path / name)
        with pytest.raises(ValueError, match=f"{name} cannot be decoded"):
            open_image(tmp_path / name, size=16)
    with pytest.raises(FileNotFoundError, match=r"gone\.jpg does not exist"):
        open_image(tmp_path / "gone.jpg")


class _Fixed(random.Random):
    """Random generator without crop, flip, rotation, shift and grayscale, except for the given draws."""

    def __init__(
        self, flips: tuple[int, int] = (1, 1), angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)
    ) -> None:
        super().__init__(0)
        self._flips, self._angle, self._shift = iter(flips), angle, iter(shift)

    def uniform(self, a: float, b: float) -> float:
        if (a, b) == (0.7, 1.0):
            return 1.0
        if b == 30:
            return self._angle
        return next(self._shift) if b == 0.05 else 0.0

    def choice(self, seq):  # type: ignore[no-untyped-def]
        return next(self._flips)

    def random(self) -> float:
        return 0.5


def test_augmentation_matrix_against_exact_operations() -> None:
    image = _picture(32, 32)
    pixels = np.asarray(image)
    np.testing.assert_array_equal(np.asarray(report_augmentation(image, 32, _Fixed())), pixels)
    np.testing.assert_array_equal(np.asarray(report_augmentation(image, 32, _Fixed(flips=(-1, 1)))), pixels[:, ::-1])
    np.testing.assert_array_equal(np.asarray(report_augmentation(image, 32, _Fixed(flips=(1, -1)))), pixels[::-1])
    shifted = np.asarray(report_augmentation(image, 32, _Fixed(shift=(2 / 32, -1 / 32)), fill=(9, 9, 9)))
    np.testing.assert_array_equal(shifted[:-1, 2:], pixels[1:, :-2])
    assert (shifted[-1] == 9).all() and (shifted[:, :2] == 9).all()
    for angle, quarter_turns in ((90.0, -1), (-90.0, 1)):
        turned = np.asarray(report_augmentation(image, 32, _Fixed(angle=angle)))
        np.testing.assert_allclose(turned.astype(int), np.rot90(pixels, quarter_turns), atol=1)  # rounding


def test_augmentation_stays_in_its_ranges() -> None:
    image = Image.new("RGB", (60, 40), (10, 200, 30))
    grey = uncovered = 0
    for seed in range(300):
        pixels = np.asarray(report_augmentation(image, 16, random.Random(seed), fill=(0, 0, 0)))
        assert pixels.shape == (16, 16, 3)
        centre = pixels[8, 8].tolist()
        assert centre in ([10, 200, 30], [124, 124, 124])  # 0.299 R + 0.587 G + 0.114 B
        grey += centre == [124, 124, 124]
        uncovered += (pixels == 0).all(axis=2).mean()
    assert 12 <= grey <= 50  # 30 expected, 5.2 the standard deviation
    assert 0.02 < uncovered / 300 < 0.2


def test_row_rng_depends_on_seed_epoch_and_row_alone() -> None:
    draws = {key: row_rng(*key).random() for key in ((0, 0, "a"), (1, 0, "a"), (0, 1, "a"), (0, 0, "b"))}
    assert len(set(draws.values())) == 4
    assert row_rng(0, 0, "a").random() == draws[0, 0, "a"]
    # fixed permanently: a run resumed on another machine sees the same images
    assert row_rng(7, 3, "ISIC_0024306.jpg").getrandbits(32) == 4121498826


def test_large_images_are_read_without_pillows_warning_up_to_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _picture().save(tmp_path / "a.png")
    with warnings.catch_warnings(record=True) as seen:
        warnings.resetwarnings()
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow warns above, and refuses above twice this
        assert open_image(tmp_path / "a.png").size == (40, 30)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
        with pytest.raises(ValueError, match=r"a\.png cannot be decoded: it has more than 1,000 pixels"):
            open_image(tmp_path / "a.png")
    assert seen == []


def test_an_unreadable_stream_type() -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        open_image(__file__)
    assert open_image(Image.open(io.BytesIO(_png()))).size == (40, 30)


def _png() -> bytes:
    buffer = io.BytesIO()
    _picture().save(buffer, format="PNG")
    return buffer.getvalue()
