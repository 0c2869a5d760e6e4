"""What an audit keeps of each image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmfusion.data.images import open_image

SIDE = 32  # of a thumbnail


@dataclass(frozen=True)
class ImageFacts:
    """What is kept of one image.

    Attributes:
        digest: SHA-256 of the file's bytes.
        size: Width and height in pixels.
        mode: Pillow's name of the pixel format.
        thumbnail: (SIDE, SIDE) uint8, grey.
    """

    digest: bytes
    size: tuple[int, int]
    mode: str
    thumbnail: np.ndarray


def look_at(path: Path, image: Image.Image) -> ImageFacts:
    """The facts of a decoded image."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").digest()
    thumbnail = open_image(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return ImageFacts(digest, image.size, image.mode, np.asarray(thumbnail))
