"""Converts images of any format to normalized tensors, with Pillow, on 8-bit pixels."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from mmfusion.images.files import read_slice, read_slices
from mmfusion.images.frames import Frame, Shot
from mmfusion.images.grey_values import BlankImageError, rgb_pictures
from mmfusion.images.picture_files import shot_of
from mmfusion.images.windows import Window
from mmfusion.names import one_line

ImageLike: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray"

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def open_image(
    source: ImageLike, *, size: int | None = None, window: Window = "auto", slice: int | str | None = None
) -> Image.Image:
    """Load an image as 8-bit RGB with its EXIF orientation applied: the input of models before resizing.

    Args:
        source: Path, Pillow image, or numeric array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        size: Target side in pixels; a JPEG more than four times as large is decoded at half, quarter or eighth
            resolution, which is much faster. None decodes at full resolution.
        window: Gray values mapped to black and white; see :func:`~mmfusion.images.grey_values.rgb_pictures`.
        slice: Slice to use of a file with several: its index, or ``middle``.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file cannot be decoded, is blank, or has several slices without a selection; the message names
            it.
        TypeError: The array has another shape or type.
        ImportError: The library for the format is not installed.
    """
    return open_pictures([source], size=size, window=window, slice=slice)[0]


def open_pictures(
    sources: Sequence[ImageLike],
    *,
    size: int | None = None,
    window: Window = "auto",
    slice: int | str | None = None,
    slices: int | str | None = None,
    several: bool = False,
) -> list[Image.Image]:
    """Open the images of one case like :func:`open_image`, all with one window.

    Args:
        sources: Paths, Pillow images or arrays.
        size: As in :func:`open_image`, like ``window``, ``slice`` and the errors raised.
        window: Gray values mapped to black and white.
        slice: Slice to use of a file with several, unless ``several``.
        slices: Slices to read of a file, as ``dataset.slices``.
        several: Whether to read all slices of a file.
    """
    shots: list[Shot] = []
    for source in sources:
        if isinstance(source, np.ndarray):
            shots.append(_from_array(source))
            continue
        if not isinstance(source, (str, os.PathLike, Image.Image)):
            raise TypeError(f"An image must be a path, a Pillow image or a NumPy array, not a {type(source).__name__}.")
        with named_errors(source):
            if isinstance(source, Image.Image):
                shots.append(shot_of(source))
            elif several:
                shots.extend(read_slices(source, slices, size))
            else:
                shots.append(read_slice(source, slice, size))
    with named_errors(sources[0] if len(sources) else ""):
        return rgb_pictures(shots, window)


@contextmanager
def named_errors(source: ImageLike) -> Iterator[None]:
    """Convert errors of a file to one line that names it, except missing files and libraries."""
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else "given"
    try:
        yield
    except ImportError:
        raise
    except Exception as error:  # damaged files may raise anything: struct.error, SyntaxError, ValueError, OSError
        if isinstance(error, FileNotFoundError) and not os.path.exists(name):
            raise FileNotFoundError(f"The image {name} does not exist.") from None
        kind = BlankImageError if isinstance(error, BlankImageError) else ValueError
        raise kind(f"The image {name} cannot be decoded: {reason_of(error)}") from error


def reason_of(error: Exception) -> str:
    """Why an image cannot be decoded, in one line."""
    if isinstance(error, Image.DecompressionBombError):
        limit = Image.MAX_IMAGE_PIXELS or 0
        return f"it has more than {2 * limit:,} pixels; reduce it, or increase PIL.Image.MAX_IMAGE_PIXELS"
    if isinstance(error, UnidentifiedImageError):
        return "its format is not supported (PNG, JPEG, TIFF, DICOM, ...), or it is damaged"
    return one_line(error)


def _from_array(array: np.ndarray) -> Shot:
    shape = array.shape[2:] in ((), (1,), (3,), (4,)) and array.ndim >= 2 and 0 not in array.shape
    if not shape or array.dtype.kind not in "biuf":
        wanted = "(H, W) or (H, W, 1|3|4) of numbers"
        raise TypeError(f"An image array must be {wanted}, not {array.shape} of {array.dtype}.")
    array = array[:, :, 0] if array.shape[2:] == (1,) else array
    if array.dtype.kind == "b":
        array = array * np.uint8(255)
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if array.shape[2:] != (4,):
        return Frame(array)
    opaque = np.iinfo(array.dtype).max if array.dtype.kind in "iu" else 1.0
    return Frame(array[:, :, :3], alpha=np.clip(array[:, :, 3] / np.float64(opaque), 0, 1))


def eval_image(image: Image.Image, size: int, *, crop_pct: float = 1.0, interpolation: str = "bicubic") -> Image.Image:
    """Crop the center square with ``crop_pct`` of the shorter side and resize it to (size, size) with antialiasing.

    Equivalent to resizing the shorter side to ``size / crop_pct`` and cropping the center, in one step.
    """
    return image.resize((size, size), INTERPOLATIONS[interpolation], box=centre_square(image.size, crop_pct))


def background(mean: Sequence[float]) -> tuple[int, ...]:
    """The color that normalization with this mean (C,) makes zero, as a missing image is."""
    return tuple(round(255 * channel) for channel in mean)


def framed(image: Image.Image, crop_mode: str, mean: Sequence[float]) -> Image.Image:
    """The image as ``crop_mode`` asks before it is cropped: unchanged, or centered on a square of its longer side.

    Args:
        image: RGB image.
        crop_mode: ``center``, or ``border``, whose border has the color :func:`background`.
        mean: Mean of each channel, for pixels in 0-1.
    """
    if crop_mode == "center":
        return image
    square = Image.new("RGB", (max(image.size),) * 2, background(mean))
    square.paste(image, border_of(image.size))
    return square


def border_of(size: tuple[int, int]) -> tuple[int, int]:
    """Width of the border that :func:`framed` adds on the left and at the top of a (width, height) image."""
    return (max(size) - size[0]) // 2, (max(size) - size[1]) // 2


def centre_square(size: tuple[int, int], share: float) -> tuple[float, float, float, float]:
    """Box (left, top, right, bottom) of the center square with ``share`` of the shorter side."""
    side = share * min(size)
    left, top = (size[0] - side) / 2, (size[1] - side) / 2
    return left, top, left + side, top + side


def region_box(roi: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    """Widen a region of interest to a square about its center, within the image.

    Args:
        roi: (x0, y0, x1, y1) in pixels.
        size: Width and height of the image.

    Raises:
        ValueError: The region is empty or is not inside the image.
    """
    width, height = size
    x0, y0, x1, y1 = map(float, roi)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        image = f"the image, which is {width} x {height} pixels"
        raise ValueError(f"The region of interest {tuple(roi)} is not inside {image}.")
    side = max(x1 - x0, y1 - y0)
    across, down = min(side, width), min(side, height)
    left = min(max((x0 + x1 - across) / 2, 0), width - across)
    top = min(max((y0 + y1 - down) / 2, 0), height - down)
    return left, top, left + across, top + down


def to_tensor(image: Image.Image, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """(3, H, W) float32, ``(pixel / 255 - mean) / std`` by channel."""
    # NumPy, since torch would use several threads per image, which is slower on busy cores.
    channel_mean, channel_std = (np.asarray(values, dtype=np.float32).reshape(3, 1, 1) for values in (mean, std))
    pixels = np.empty((3, image.height, image.width), dtype=np.float32)
    np.multiply(np.asarray(image).transpose(2, 0, 1), 1 / (255 * channel_std), out=pixels)
    pixels -= channel_mean / channel_std
    return torch.from_numpy(pixels)
