"""Random changes of training images. A user's own is a function registered as ``"augmentation"``.

Numbers come from a generator of the row's own: torchvision's transforms draw from torch's global one.
"""

import hashlib
import math
import random
from collections.abc import Sequence
from typing import Protocol

from PIL import Image

from mmfusion.data.images import INTERPOLATIONS
from mmfusion.registry import register


class Augmentation(Protocol):
    """What an augmentation is called with: an RGB image of any size; it returns one of (size, size)."""

    def __call__(
        self, image: Image.Image, size: int, rng: random.Random, *, interpolation: str, fill: Sequence[int]
    ) -> Image.Image: ...


@register("augmentation", "report")
def report_augmentation(
    image: Image.Image,
    size: int,
    rng: random.Random,
    *,
    interpolation: str = "bicubic",
    fill: Sequence[int] = (0, 0, 0),
) -> Image.Image:
    """The training augmentation of the report (MIBF-Net).

    In this order: a random crop of 70-100 % of the area with aspect ratio 3/4-4/3, resized to (size, size); horizontal
    and vertical flip, each with probability 0.5; rotation by up to 30 degrees; translation by up to 5 % of the side;
    grayscale with probability 0.1. (ImageNet training crops down to 8 % of the area: a lesion would be lost.)

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
    # Where each output pixel comes from: undo the shift, turn about the centre, flip.
    a, b = flip_x * math.cos(angle), flip_x * math.sin(angle)
    d, e = -flip_y * math.sin(angle), flip_y * math.cos(angle)
    centre_x, centre_y = size / 2 + shift_x, size / 2 + shift_y
    matrix = (a, b, size / 2 - a * centre_x - b * centre_y, d, e, size / 2 - d * centre_x - e * centre_y)
    image = image.transform(
        (size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR, fillcolor=tuple(fill)
    )
    return image.convert("L").convert("RGB") if rng.random() < 0.1 else image


def row_rng(seed: int, epoch: int, row_id: str) -> random.Random:
    """A generator that depends on these three alone: any worker or process draws the same numbers for a row."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{row_id}".encode(), digest_size=8).digest()
    return random.Random(int.from_bytes(digest, "little"))
