"""Augmentations of training images. Custom ones are functions registered as ``"augmentation"``.

Random numbers come from a generator per row (torchvision's transforms use torch's global one). Pillow processes the
pixels, with at most one resizing, one affine map and one color matrix per image.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mmfusion.images.opening import INTERPOLATIONS
from mmfusion.registry import register


class Augmentation(Protocol):
    """Signature of augmentations: an RGB image of any size in, one of (size, size) out."""

    def __call__(
        self, image: Image.Image, size: int, rng: random.Random, *, interpolation: str, fill: Sequence[int]
    ) -> Image.Image: ...


@dataclass(frozen=True)
class RandomView:
    """Randomly rotated, scaled and shifted square crop of an image, with changed brightness and color.

    Areas outside the image are filled with ``fill``. Each number is drawn uniformly, independent of the image, so that
    several images of one case get the same augmentation.

    Attributes:
        scale: Minimum and maximum area of the crop, as a share of the image's center square.
        degrees: Maximum rotation in degrees, in both directions.
        stretch: Maximum aspect ratio of the crop, between 1 / stretch and stretch, uniform on a logarithmic scale.
        shift: Center of the square: None places it anywhere inside the image before rotation; a number limits its
            distance from the image's center, across and down, to this share of the central square's side.
        flip_x: Flip left and right in half of the cases.
        flip_y: Flip top and bottom in half of the cases.
        brightness: Values are multiplied by a factor from 1 - brightness to 1 + brightness.
        contrast: As ``brightness``, for differences from the mean of the crop.
        saturation: As ``brightness``, for differences of each pixel's channels from their mean.
        hue: Maximum hue shift, as a share of the full circle, in both directions.
    """

    scale: tuple[float, float]
    degrees: float
    stretch: float = 1.0
    shift: float | None = None
    flip_x: bool = False
    flip_y: bool = False
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0

    def __call__(
        self,
        image: Image.Image,
        size: int,
        rng: random.Random,
        *,
        interpolation: str = "bicubic",
        fill: Sequence[int] = (0, 0, 0),
    ) -> Image.Image:
        """One view.

        Args:
            image: RGB image.
            size: Side of the result in pixels.
            rng: Source of the random numbers.
            interpolation: Interpolation of the resizing; rotation is bilinear.
            fill: Color of areas outside the image.
        """
        middle = min(image.size)
        side = math.sqrt(rng.uniform(*self.scale)) * middle
        ratio = math.exp(rng.uniform(-0.5, 0.5) * math.log(self.stretch))
        extent = side * ratio, side / ratio
        places = rng.uniform(-1, 1), rng.uniform(-1, 1)
        room = [max(image.width - extent[0], 0) / 2, max(image.height - extent[1], 0) / 2]
        if self.shift is not None:
            room = [self.shift * middle] * 2
        centre = image.width / 2 + places[0] * room[0], image.height / 2 + places[1] * room[1]
        angle = math.radians(rng.uniform(-self.degrees, self.degrees))
        flips = [rng.choice((-1, 1)) if allowed else 1 for allowed in (self.flip_x, self.flip_y)]
        across, down = (flip * part / size for flip, part in zip(flips, extent, strict=True))
        cos, sin = math.cos(angle), math.sin(angle)
        # position in the image of an output pixel, relative to the output's center: centre + axes @ (x, y)
        axes = (across * cos, -down * sin, across * sin, down * cos)
        view = _sampled(image, size, centre, axes, interpolation, fill)
        return self._recolored(view, rng)

    def _recolored(self, view: Image.Image, rng: random.Random) -> Image.Image:
        """Hue, saturation, contrast and brightness, in this order, as one 3 x 4 matrix."""
        amounts = self.brightness, self.contrast, self.saturation
        brightness, contrast, saturation = (1 + amount * rng.uniform(-1, 1) for amount in amounts)
        turn = 2 * math.pi * self.hue * rng.uniform(-1, 1)
        offset = brightness * (1 - contrast) * float(np.asarray(view).mean())
        scale, grey = brightness * contrast, (1 - saturation * math.cos(turn)) / 3
        # a rotation by `turn` about the gray axis, with the other two axes scaled by the saturation
        own, skew = saturation * math.cos(turn) + grey, saturation * math.sin(turn) / math.sqrt(3)
        own, before, after = scale * own, scale * (grey - skew), scale * (grey + skew)
        matrix = (own, before, after, offset, after, own, before, offset, before, after, own, offset)
        return view.convert("RGB", matrix)


def _sampled(
    image: Image.Image,
    size: int,
    centre: tuple[float, float],
    axes: tuple[float, float, float, float],
    interpolation: str,
    fill: Sequence[int],
) -> Image.Image:
    """Sample (size, size) pixels of an image under an affine map, after shrinking the image to the output scale.

    Args:
        centre: Position in the image of the output's center.
        axes: Matrix, row by row, from output pixels to image pixels.
    """
    a, b, d, e = axes
    scale = 1 / math.sqrt(abs(a * e - b * d))  # output pixels per image pixel
    left, top, zoom_x, zoom_y = 0.0, 0.0, 1.0, 1.0
    if scale < 1:
        # two more output pixels, so that interpolation sees no artificial border
        reach = [(abs(x) + abs(y)) * (size / 2 + 2) for x, y in ((a, b), (d, e))]
        left, top = (max(middle - far, 0) for middle, far in zip(centre, reach, strict=True))
        right, bottom = (min(m + far, end) for m, far, end in zip(centre, reach, image.size, strict=True))
        width, height = (max(round(part * scale), 1) for part in (right - left, bottom - top))
        zoom_x, zoom_y = width / (right - left), height / (bottom - top)
        image = image.resize((width, height), INTERPOLATIONS[interpolation], box=(left, top, right, bottom))
    x, y = zoom_x * (centre[0] - left), zoom_y * (centre[1] - top)
    a, b, d, e = zoom_x * a, zoom_x * b, zoom_y * d, zoom_y * e
    matrix = (a, b, x - (a + b) * size / 2, d, e, y - (d + e) * size / 2)
    fillcolor = tuple(fill)
    return image.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=fillcolor)


BASIC = RandomView(scale=(0.7, 1.0), degrees=10, stretch=1.1, brightness=0.1, contrast=0.1, saturation=0.1)
DERMOSCOPY = RandomView(
    scale=(0.5, 1.0),
    degrees=180,
    stretch=1.2,
    flip_x=True,
    flip_y=True,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.02,
)
MRI = RandomView(scale=(0.81, 1.21), degrees=10, shift=0.05, brightness=0.2, contrast=0.2)


@register("augmentation", "basic")
def basic_augmentation(image: Image.Image, size: int, rng: random.Random, **drawing: Any) -> Image.Image:
    """Crop of 70-100 % of the center square's area, rotation by up to 10 degrees, slight color changes.

    No flips. :data:`BASIC` has the parameters, explained in :class:`RandomView`.
    """
    return BASIC(image, size, rng, **drawing)


@register("augmentation", "dermoscopy")
def dermoscopy_augmentation(image: Image.Image, size: int, rng: random.Random, **drawing: Any) -> Image.Image:
    """For images without orientation: any rotation, flips, 50-100 % of the center square's area, color changes.

    :data:`DERMOSCOPY` has the parameters, explained in :class:`RandomView`.
    """
    return DERMOSCOPY(image, size, rng, **drawing)


@register("augmentation", "mri")
def mri_augmentation(image: Image.Image, size: int, rng: random.Random, **drawing: Any) -> Image.Image:
    """For slices of a scan: rotation by up to 10 degrees, shift by 5 %, scaling by 10 %, intensity changes.

    No flips. :data:`MRI` has the parameters, explained in :class:`RandomView`.
    """
    return MRI(image, size, rng, **drawing)


@register("augmentation", "report")
def report_augmentation(
    image: Image.Image,
    size: int,
    rng: random.Random,
    *,
    interpolation: str = "bicubic",
    fill: Sequence[int] = (0, 0, 0),
) -> Image.Image:
    """Training augmentation after MIBF-Net: crop, flips, rotation, translation, grayscale.

    In this order: a random crop of 70-100 % of the area with aspect ratio 3/4-4/3, resized to (size, size); horizontal
    and vertical flip, each with probability 0.5; rotation by up to 30 degrees; translation by up to 5 % of the side;
    grayscale with probability 0.1. (ImageNet training crops down to 8 % of the area, which could cut off a lesion.)

    The published code of MIBF-Net does crop down to 8 %, flips vertically with probability 0.1, and translates by up to
    10 % of the side.

    Args:
        image: RGB image.
        size: Side of the result in pixels.
        rng: Source of the random numbers.
        interpolation: Interpolation of the resized crop; flips, rotation and translation are one bilinear resampling.
        fill: Color of the corners that a rotation uncovers.
    """
    area = image.width * image.height * rng.uniform(0.7, 1.0)
    ratio = math.exp(rng.uniform(math.log(3 / 4), math.log(4 / 3)))
    width = min(math.sqrt(area * ratio), image.width)
    height = min(math.sqrt(area / ratio), image.height)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, min(left + width, image.width), min(top + height, image.height))
    image = image.resize((size, size), INTERPOLATIONS[interpolation], box=box)

    flip_x, flip_y = rng.choice((-1, 1)), rng.choice((-1, 1))
    angle = math.radians(rng.uniform(-30, 30))
    shift_x, shift_y = (rng.uniform(-0.05, 0.05) * size for _ in range(2))
    # Source of each output pixel: undo the shift, rotate about the center, flip.
    a, b = flip_x * math.cos(angle), flip_x * math.sin(angle)
    d, e = -flip_y * math.sin(angle), flip_y * math.cos(angle)
    centre_x, centre_y = size / 2 + shift_x, size / 2 + shift_y
    matrix = (a, b, size / 2 - a * centre_x - b * centre_y, d, e, size / 2 - d * centre_x - e * centre_y)
    image = image.transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=tuple(fill)
    )
    return image.convert("L").convert("RGB") if rng.random() < 0.1 else image


def row_rng(seed: int, epoch: int, row_id: str) -> random.Random:
    """A generator that depends only on these three, so any worker or process draws the same numbers for a row."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{row_id}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))
