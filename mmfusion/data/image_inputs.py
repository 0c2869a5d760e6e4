"""Image inputs as tensors: one image with its region of interest, or several images."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from mmfusion import registry
from mmfusion.images.augmentations import Augmentation
from mmfusion.images.opening import (
    INTERPOLATIONS,
    ImageLike,
    background,
    border_of,
    centre_square,
    eval_image,
    framed,
    open_pictures,
    region_box,
    to_tensor,
)
from mmfusion.images.windows import Window


@dataclass
class ImageEncoder:
    """Turns the images of one case into tensors. All are augmented alike, and each is decoded once.

    Attributes:
        size: Side of the square input in pixels.
        mean: Mean of each channel, for pixels in 0-1.
        std: Standard deviation of each channel.
        interpolation: Name of the interpolation.
        crop_pct: Fraction of the shorter side kept without augmentation.
        augment: Augmentation or its name; None for evaluation.
        rng: Random generator of the augmentation.
        window: Gray values mapped to black and white.
        slice: Slice to use of a file with several.
        slices: Slices to read of a file in a study.
        crop_mode: ``center``, or ``border``, which pads images to squares.

    Raises:
        ValueError: The augmentation is unknown or has no generator.
    """

    size: int
    mean: Sequence[float]
    std: Sequence[float]
    interpolation: str
    crop_pct: float
    augment: str | Augmentation | None = None
    rng: random.Random | None = None
    window: Window = "auto"
    slice: int | str | None = None
    slices: int | str | None = None
    crop_mode: str = "center"

    def __post_init__(self) -> None:
        if self.augment is not None and self.rng is None:
            known = ", ".join(registry.names("augmentation"))
            raise ValueError(f"augment={self.augment!r} needs a generator rng and a known name; known: {known}.")
        named = self.augment
        self._augment = registry.get("augmentation", named) if isinstance(named, str) else named
        self._state = self.rng.getstate() if self.rng is not None else None

    def one(self, image: ImageLike | None, roi: Sequence[float] | Literal["centre"] | None = None) -> dict[str, Any]:
        """``pixel_values`` (3, H, W) and ``image_present``; with a region of interest also ``roi_values`` (3, H, W)."""
        if image is None:
            item = {"pixel_values": torch.zeros(3, self.size, self.size), "image_present": False}
            return item if roi is None else {**item, "roi_values": item["pixel_values"]}
        (picture,) = open_pictures([image], size=self._decoded_size(roi), window=self.window, slice=self.slice)
        if self.crop_mode == "border" and roi is not None and not isinstance(roi, str):
            region_box(roi, picture.size)  # rejects a region outside the image, before the border is added
            roi = [x + border for x, border in zip(roi, border_of(picture.size) * 2, strict=True)]
        picture = framed(picture, self.crop_mode, self.mean)
        item = {"pixel_values": self._tensor(picture), "image_present": True}
        return item if roi is None else {**item, "roi_values": self._region(picture, roi)}

    def several(self, images: Sequence[ImageLike | None], mask: str) -> dict[str, Any]:
        """``pixel_values`` (N, 3, H, W) of slices or views, a presence mask named ``mask``, and ``image_present``.

        A file of a study contributes all of its slices, and all slices share one window.
        """
        if isinstance(images, (str, os.PathLike, Image.Image, np.ndarray)):
            raise TypeError("slices and views must be a list of images; put a single image in a list.")
        if mask == "slice_mask":
            files = [image for image in images if image is not None]
            found = open_pictures(
                files, size=self._decoded_size(), window=self.window, slices=self.slices, several=True
            )
            pixels = [self._tensor(framed(picture, self.crop_mode, self.mean)) for picture in found]
            present = [True] * len(found)
        else:
            pixels = [self.one(image)["pixel_values"] for image in images]
            present = [image is not None for image in images]
        stacked = torch.stack(pixels) if pixels else torch.zeros(0, 3, self.size, self.size)
        return {"pixel_values": stacked, mask: present, "image_present": any(present)}

    def _decoded_size(self, roi: Any = None) -> int | None:
        """Size to which a JPEG may be decoded; None if pixels or their statistics are needed."""
        return self.size if roi is None and self.window in (None, "auto", "full", "dicom") else None

    def _region(self, picture: Image.Image, roi: Sequence[float] | Literal["centre"]) -> torch.Tensor:
        box = centre_square(picture.size, self.crop_pct / 2) if roi == "centre" else region_box(roi, picture.size)
        if self._augment is not None:
            return self._tensor(picture.crop((round(box[0]), round(box[1]), round(box[2]), round(box[3]))))
        region = picture.resize((self.size, self.size), INTERPOLATIONS[self.interpolation], box=box)
        return to_tensor(region, self.mean, self.std)

    def _tensor(self, picture: Image.Image) -> torch.Tensor:
        if self._augment is None or self.rng is None or self._state is None:
            picture = eval_image(picture, self.size, crop_pct=self.crop_pct, interpolation=self.interpolation)
        else:
            drawn: dict[str, Any] = {"interpolation": self.interpolation, "fill": background(self.mean)}
            self.rng.setstate(self._state)
            picture = self._augment(picture, self.size, self.rng, **drawn)
        return to_tensor(picture, self.mean, self.std)


def pad_images(images: Sequence[torch.Tensor], masks: Sequence[Sequence[bool]], name: str) -> dict[str, torch.Tensor]:
    """Pad cases with different numbers of images with zeros to one tensor, and their masks under ``name``."""
    pixels = images[0].new_zeros(len(images), max(1, *map(len, masks)), *images[0].shape[1:])
    present = torch.zeros(pixels.shape[:2], dtype=torch.bool)
    for i, (values, mask) in enumerate(zip(images, masks, strict=True)):
        pixels[i, : len(values)] = values
        present[i, : len(mask)] = torch.tensor(mask, dtype=torch.bool)
    return {"pixel_values": pixels, name: present}
