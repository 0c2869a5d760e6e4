"""Pictures that Pillow decodes: one, or the pages of a TIFF file and the frames of an animation, as slices."""

import io
import os
import sys
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mmfusion.images.frames import Frame, Shot, Stack, Values, of_extra

#: Formats that are opened; PostScript, which runs a program, is none of them.
FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "DIB", "WEBP", "GIF", "JPEG2000", "AVIF", "PPM")
#: First bytes of TIFF and BigTIFF, in either order of bytes.
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PHOTOMETRIC, _BITS, _SAMPLE_FORMAT, _SUBFILE = 262, 258, 339, 254  # tags of TIFF


def picture_stack(path: str | os.PathLike[str], size: int | None) -> Stack:
    """The pages of a picture.

    Args:
        path: File.
        size: As for :func:`~mmfusion.images.opening.open_image`.

    Raises:
        OSError: The file is no picture of :data:`FORMATS`, or damaged.
    """
    with open(path, "rb") as file:
        content = file.read()
    try:
        image = Image.open(io.BytesIO(content), formats=_known_formats())
    except UnidentifiedImageError:
        if content.startswith(_TIFF):
            kind = "it is a TIFF of a kind that is not read (values of 64 bits, colors of 32), or is damaged"
            raise OSError(f"{kind}; save it with 8 or 16 bits, or grey values of 32") from None
        raise
    count = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)  # later pictures of MPO are previews
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
    """Those of the formats that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def heic_stack(path: str | os.PathLike[str]) -> Stack:
    """The picture of a HEIC file, which telephones write.

    Raises:
        ImportError: pillow-heif is not installed.
    """
    with of_extra("heic", path, "a HEIC picture"):
        import pillow_heif
    image = pillow_heif.read_heif(path)
    return Stack(1, lambda _: image.to_pillow())


def _is_reduced(image: Any, page: int) -> bool:
    """Whether a page is a smaller copy of another, or a mask, and no slice of its own."""
    image.seek(page)
    return bool(int(image.tag_v2.get(_SUBFILE, 0)) & 0b101)


def shot_of(image: Image.Image) -> Shot:
    """A picture as it stands, turned as its EXIF orientation says; with more than 8 bits in its own values."""
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
        values = values.view(np.uint32)  # Pillow has no such mode and wraps them
    return Frame(values, inverted=tags.get(_PHOTOMETRIC) == 0)


def _raw_mode(image: Image.Image) -> str:
    """How the samples lie in the file, in Pillow's words."""
    arguments = [tile[3] for tile in getattr(image, "tile", None) or []]
    return str(arguments[0][0] if arguments and isinstance(arguments[0], tuple) else (arguments or [""])[0])


def _deep(image: Any) -> Frame:
    """Colors of 16 bits, of which Pillow keeps the upper byte: decoded twice, once for either byte.

    Raises:
        OSError: Pillow has no way to the lower byte.
    """
    raw, page = _raw_mode(image), image.tell()
    name, swapped = raw.split(";")[0], {"L": "B", "B": "L"}[raw[-1] if raw[-1] in "LB" else sys.byteorder[0].upper()]
    if name not in ("RGB", "RGBA"):
        raise OSError(f"{raw} is a layout of 16-bit values that is not read; save it as grey or RGB of 16 bits")
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
    """A tile of Pillow's whose samples are read otherwise."""
    codec, extents, offset, arguments = tile
    arguments = (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw
    return getattr(type(tile), "_make", tuple)((codec, extents, offset, arguments))
