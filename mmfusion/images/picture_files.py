"""Images decoded by Pillow, including TIFF pages and animation frames as slices."""

import io
import os
import sys
import warnings
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmfusion.images.frames import Frame, Shot, Stack, Values, of_extra

#: Supported formats; PostScript, which can run a program, is excluded.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "JPEG2000", "AVIF", "PPM")
#: First bytes of TIFF and BigTIFF in either byte order.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
#: Filter for Pillow's warning at half its pixel limit; images above the limit raise our own error.
_QUIET = ("ignore", None, Image.DecompressionBombWarning, None, 0)
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _SUBFILE = 262, 258, 339, 254  # TIFF tags


def picture_stack(path: str | os.PathLike[str], size: int | None) -> Stack:
    """The pages of an image file.

    Args:
        path: File.
        size: As in :func:`~mmfusion.images.opening.open_image`.

    Raises:
        OSError: The file has none of :data:`FORMATS`, or is damaged.
    """
    if _QUIET not in warnings.filters:  # checked each time, since catch_warnings resets filters
        warnings.simplefilter("ignore", Image.DecompressionBombWarning, append=True)
    with open(path, "rb") as file:
        content = file.read()
    try:
        image = Image.open(io.BytesIO(content), formats=_known_formats())
    except UnidentifiedImageError:
        if content.startswith(_TIFF):
            kind = "it is an unsupported TIFF (64-bit values, 32-bit colors) or is damaged"
            raise OSError(f"{kind}; save it with 8 or 16 bits, or as 32-bit gray values") from None
        raise
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # later images of MPO are previews
    if count == 1:
        if size is not None:
            image.draft(None, (2 * size, 2 * size))
        return Stack(1, lambda _: shot_of(image))
    pages = list(range(count))
    if image.format == "TIFF":
        pages = [page for page in pages if not _is_reduced(image, page)] or pages

    def read(position: int) -> Shot:
        image.seek(pages[position])
        return shot_of(image)

    return Stack(len(pages), read)


@cache
def _known_formats() -> list[str]:
    """The supported formats that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def heic_stack(path: str | os.PathLike[str]) -> Stack:
    """The image of a HEIC file, as written by phones.

    Raises:
        ImportError: pillow-heif is not installed.
    """
    with of_extra("heic", path, "a HEIC picture"):
        import pillow_heif
    image = pillow_heif.read_heif(path)
    return Stack(1, lambda _: image.to_pillow())


def _is_reduced(image: Any, page: int) -> bool:
    """Whether a page is a thumbnail or a mask rather than a slice."""
    image.seek(page)
    return bool(int(image.tag_v2.get(_SUBFILE, 0)) & 0b101)


def shot_of(image: Image.Image) -> Shot:
    """An image with EXIF orientation applied; with more than 8 bits, its original values."""
    is_deep = image.mode in ("RGB", "RGBA", "LA") and ";16" in _raw_mode(image)
    if is_deep:
        return _deep(image)
    image.load()
    tags = getattr(image, "tag_v2", {})
    upright = ImageOps.exif_transpose(image)
    signed_bytes = image.mode == "L" and tags.get(_SAMPLE_FORMAT) == (2,)
    if not image.mode.startswith(("I", "F")) and not signed_bytes:
        return upright
    values = np.array(upright)
    if signed_bytes:
        values = values.view(np.int8)
    elif tags.get(_BITS) == (32,) and tags.get(_SAMPLE_FORMAT, (1,)) == (1,):
        values = values.view(np.uint32)  # Pillow lacks this mode and wraps the values
    return Frame(values, inverted=tags.get(_PHOTOMETRIC) == 0)


def _raw_mode(image: Image.Image) -> str:
    """Pillow's raw mode of the samples in the file."""
    arguments = [tile[3] for tile in getattr(image, "tile", None) or []]
    return str(arguments[0][0] if arguments and isinstance(arguments[0], tuple) else (arguments or [""])[0])


def _deep(image: Any) -> Frame:
    """16-bit colors, of which Pillow keeps only the upper byte: decoded twice, once for each byte.

    Raises:
        OSError: Pillow cannot read the lower byte.
    """
    raw, page = _raw_mode(image), image.tell()
    name, swapped = raw.split(";")[0], {"L": "B", "B": "L"}[raw[-1] if raw[-1] in "LB" else sys.byteorder[0].upper()]
    if name not in ("RGB", "RGBA"):
        raise OSError(f"{raw} is an unsupported 16-bit layout; save it as 16-bit gray or RGB")
    image.fp.seek(0)
    content = image.fp.read()

    def decoded(suffix: str | None) -> Values:
        opened: Any = Image.open(io.BytesIO(content), formats=[image.format])
        opened.seek(page)
        if suffix is not None:
            opened.tile = [_with_raw_mode(tile, f"{name};16{suffix}") for tile in opened.tile]
        return np.asarray(ImageOps.exif_transpose(opened), dtype=np.uint16)

    values = decoded(None) * 256 + decoded(swapped)
    if name == "RGBA":
        return Frame(values[:, :, :3], alpha=values[:, :, 3] / np.float32(65535))
    return Frame(values)


def _with_raw_mode(tile: Any, raw: str) -> Any:
    """A Pillow tile with another raw mode."""
    codec, extents, offset, arguments = tile
    arguments = (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw
    return getattr(type(tile), "_make", tuple)((codec, extents, offset, arguments))
