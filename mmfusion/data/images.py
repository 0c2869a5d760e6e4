"""From an image of any kind to a normalized tensor. Pillow does the work, on 8-bit pixels."""

import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def open_image(source: ImageLike, *, size: int | None = None) -> Image.Image:
    """Load an image as 8-bit RGB, turned as its EXIF orientation says.

    Args:
        source: Path, Pillow image, or array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8 or uint16.
        size: Side in pixels that the image will be resized to; a JPEG more than four times as large is decoded at a
            half, quarter or eighth, which is much faster. None decodes it whole.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file cannot be decoded; the message names it.
        TypeError: The array has another shape or type.
    """
    if isinstance(source, np.ndarray):
        return _to_rgb(_from_array(source))
    if isinstance(source, Image.Image):
        return _to_rgb(ImageOps.exif_transpose(source))
    try:
        with Image.open(source) as image:
            if size is not None:
                image.draft(None, (2 * size, 2 * size))  # type: ignore[arg-type]
            image.load()
            return _to_rgb(ImageOps.exif_transpose(image))
    except FileNotFoundError:
        raise FileNotFoundError(f"The image {os.fspath(source)} does not exist.") from None
    except Exception as error:  # a damaged file may raise anything: struct.error, SyntaxError, ValueError, OSError
        raise ValueError(f"The image {os.fspath(source)} cannot be decoded: {error}") from error


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype not in (np.uint8, np.uint16) or array.ndim < 2 or array.shape[2:] not in ((), (1,), (3,), (4,)):
        wanted = "(H, W) or (H, W, 1|3|4) of uint8 or uint16"
        raise TypeError(f"An image array is {wanted}, not {array.shape} of {array.dtype}.")
    array = array[:, :, 0] if array.shape[2:] == (1,) else array
    return Image.fromarray(_to_8_bit(array) if array.dtype == np.uint16 else array)


def _to_8_bit(array: np.ndarray) -> np.ndarray:
    """Stretch the image's own range to 0-255: scanners leave the upper bits of 16 empty, by makes that differ."""
    values = array.astype(np.float32)
    low, high = values.min(), values.max()
    return ((values - low) * (255 / max(high - low, 1e-12))).round().astype(np.uint8)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(_to_8_bit(np.asarray(image)))
    return image if image.mode == "RGB" else image.convert("RGB")


def eval_image(image: Image.Image, size: int, *, crop_pct: float = 1.0, interpolation: str = "bicubic") -> Image.Image:
    """The centre square with ``crop_pct`` of the shorter side, resized to (size, size) with antialiasing.

    The same as resizing the shorter side to ``size / crop_pct`` and cropping the centre, in one step.
    """
    return image.resize((size, size), INTERPOLATIONS[interpolation], box=centre_square(image.size, crop_pct))


def centre_square(size: tuple[int, int], share: float) -> tuple[float, float, float, float]:
    """Box (left, top, right, bottom) of a (width, height) image's middle square, ``share`` of the shorter side."""
    side = share * min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def region_box(roi: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """A region of interest widened to a square about its centre, as far as the image reaches.

    Args:
        roi: (x0, y0, x1, y1) in pixels.
        size: Width and height of the image.

    Raises:
        ValueError: The region is empty or does not lie in the image.
    """
    width, height = size
    x0, y0, x1, y1 = map(float, roi)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        image = f"the image, which is {width} x {height} pixels"
        raise ValueError(f"The region of interest {tuple(roi)} does not lie in {image}.")
    side = max(x1 - x0, y1 - y0)
    across, down = min(side, width), min(side, height)
    left = min(max((x0 + x1 - across) / 2, 0), width - across)
    top = min(max((y0 + y1 - down) / 2, 0), height - down)
    return left, top, left + across, top + down


def to_tensor(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(3, H, W) float32, ``(pixel / 255 - mean) / std`` by channel."""
    # NumPy, since torch spreads an image over threads, which costs more than it saves where the cores are busy.
    channel_mean, channel_std = (np.asarray(values, dtype=np.float32).reshape(3, 1, 1) for values in (mean, std))
    pixels = np.empty((3, image.height, image.width), dtype=np.float32)
    np.multiply(np.asarray(image).transpose(2, 0, 1), 1 / (255 * channel_std), out=pixels)
    pixels -= channel_mean / channel_std
    return torch.from_numpy(pixels)
