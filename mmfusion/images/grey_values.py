"""Mapping of image values to gray levels, for every format (``processor.window``)."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from mmfusion.images.frames import Frame, Shot, Values
from mmfusion.images.windows import Window

#: Percentiles that cover most values.
_MOST = (0.5, 99.5)
#: Values are outliers if the gap to the others exceeds this share of the others' span, if they are a single value or at
#: most this share of the pixels, and if the others are not just a few classes.
_GAP, _RARE, _FEW = 0.25, 0.005, 16
_WHITE = (255, 255, 255)
#: Number of image rows looked up at once.
_ROWS = 32


class BlankImageError(ValueError):
    """A blank image: all of its pixels are equal, or none is a number."""


def rgb_pictures(shots: Sequence[Shot], window: Window = "auto") -> list[Image.Image]:
    """Convert slices of one image or study to 8-bit RGB with a common window.

    Args:
        shots: The slices.
        window: ``auto``: a file's own window, else the range of the values of all slices, without outliers (dead
            pixels, burnt-in text, padding). ``full``: from the smallest to the largest value. ``percentile``: from
            percentile 0.5 to 99.5. ``[center, width]``: given in the file's units. ``dicom``: the file's own window.
            An 8-bit image is unchanged, unless a percentile or a center and width are requested.

    Raises:
        BlankImageError: All slices are blank.
        ValueError: ``dicom`` is requested and a slice has no window of its own.
    """
    if window not in (None, "auto", "full", "dicom"):
        shots = [_as_frame(shot) if isinstance(shot, Image.Image) else shot for shot in shots]
    frames = [shot for shot in shots if isinstance(shot, Frame) and not _shown_by_file(shot, window)]
    limits = _limits(frames, window) if frames else (0.0, 1.0)
    pictures, blank = [], True
    for shot in shots:
        if isinstance(shot, Image.Image):
            picture = as_rgb(shot, flat=window is not None)
            blank = blank and is_blank(picture)
        else:
            picture = _rendered(shot, None if _shown_by_file(shot, window) else limits)
            # judged by the values: those outside the window are dark but present
            blank = blank and (shot.ends is None or shot.ends[0] == shot.ends[1])
        pictures.append(picture)
    if blank and shots:
        raise BlankImageError("the image is blank: all of its pixels are equal")
    return pictures


def is_blank(picture: Image.Image) -> bool:
    """Whether all pixels are equal and gray."""
    width, height = picture.size
    corners = {picture.getpixel((x * (width - 1) // 3, y * (height - 1) // 3)) for x in range(4) for y in range(4)}
    if len(corners) > 1:
        return False
    extrema = np.array(picture.getextrema())
    return bool(extrema.min() == extrema.max())


def as_rgb(picture: Image.Image, *, flat: bool) -> Image.Image:
    """Convert an 8-bit image to RGB; transparency is put on white if ``flat``, else dropped."""
    if flat and (picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in picture.info):
        layer = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, (*_WHITE, 255)), layer).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _as_frame(picture: Image.Image) -> Frame:
    grey = picture.mode in ("1", "L")
    return Frame(np.asarray(picture.convert("L") if grey else as_rgb(picture, flat=True)))


def _shown_by_file(frame: Frame, window: Window) -> bool:
    """Whether a slice is displayed with its file's own window."""
    if window == "dicom" and frame.window is None:
        raise ValueError("processor.window is dicom, but the file has no window of its own")
    return frame.window is not None and window in (None, "auto", "dicom")


def _limits(frames: Sequence[Frame], window: Window) -> tuple[float, float]:
    """The values mapped to black and white."""
    if window is not None and not isinstance(window, str):
        center, width = window
        return center - width / 2, center + width / 2
    levels, counts = _levels(frames)
    if not len(levels):
        raise BlankImageError("the image is blank: none of its values is a number")
    if window == "full":
        return float(levels[0]), float(levels[-1])
    if window == "percentile":
        reached = np.cumsum(counts)
        low, high = (float(levels[np.searchsorted(reached, share / 100 * reached[-1])]) for share in _MOST)
        if high > low:
            return low, high
    levels, _ = _without_outliers(levels, counts)
    return float(levels[0]), float(levels[-1])


def _levels(frames: Sequence[Frame]) -> tuple[Values, Values]:
    """Sorted unique values of the slices and their counts."""
    found = []
    for frame in frames:
        stored, counts = _stored_levels(frame)
        if frame.padding is not None:
            kept = (stored < frame.padding[0]) | (stored > frame.padding[1])
            stored, counts = (stored[kept], counts[kept]) if kept.any() else (stored, counts)
        units = frame.units(stored)
        real = np.isfinite(units)
        found.append((units[real].astype(np.float64), counts[real]))
    levels, places = np.unique(np.concatenate([units for units, _ in found]), return_inverse=True)
    counts = np.bincount(places, weights=np.concatenate([counts for _, counts in found]), minlength=len(levels))
    return levels, counts


def _stored_levels(frame: Frame) -> tuple[Values, Values]:
    values = frame.values if frame.alpha is None else frame.values[frame.alpha > 0]
    if _has_table(values) and values.size:
        low = int(values.min())
        counts = np.bincount(values.ravel().astype(np.int64) - low)
        there = np.flatnonzero(counts)
        return there + low, counts[there]
    return np.unique(values, return_counts=True)


def _has_table(values: Values) -> bool:
    return values.dtype.kind in "iu" and values.dtype.itemsize <= 2


def _without_outliers(levels: Values, counts: Values) -> tuple[Values, Values]:
    """The values without isolated ones at either end: a single value, or rare ones."""
    while True:
        kept = _below_gap(levels, counts)
        first = kept - _below_gap(-levels[:kept][::-1], counts[:kept][::-1])
        if kept == len(levels) and not first:
            return levels, counts
        levels, counts = levels[first:kept], counts[first:kept]


def _below_gap(levels: Values, counts: Values) -> int:
    """Number of sorted values below the first gap that isolates them."""
    reached = np.cumsum(counts)
    wide = np.diff(levels) > _GAP * (levels[:-1] - levels[0])
    few = reached[-1] - reached[:-1] <= _RARE * reached[-1]
    few[-1:] = True
    found = np.flatnonzero((wide & few)[_FEW - 1 :])
    return int(found[0]) + _FEW if len(found) else len(levels)


def _rendered(frame: Frame, limits: tuple[float, float] | None) -> Image.Image:
    """Render a slice between two values; None uses the file's window."""
    values = frame.values
    if _has_table(values) and values.size > 2**12:
        # One code per bit pattern in use, so that the slices of a series share one table.
        bits = max((end if end >= 0 else ~end).bit_length() for end in map(int, frame.ends or (0, 0)))
        make = _table if frame.is_plain else _table.__wrapped__
        table = make(frame.rescale, frame.window, frame.inverted, limits, values.dtype, bits)
        shown = _looked_up(table, values.view(f"u{values.itemsize}"))
    else:
        shown = _bytes(frame, values, limits)
    picture = Image.fromarray(shown)
    if frame.alpha is not None:
        behind = Image.new(picture.mode, picture.size, _WHITE if picture.mode == "RGB" else 255)
        picture = Image.composite(picture, behind, Image.fromarray((frame.alpha * 255).round().astype(np.uint8)))
    return picture if picture.mode == "RGB" else Image.merge("RGB", [picture] * 3)


def _looked_up(table: Values, codes: Values) -> Values:
    """Look up codes in a table, some rows at a time, since NumPy converts every code to 64 bits first."""
    shown = np.empty(codes.shape, dtype=table.dtype)
    for start in range(0, len(codes), _ROWS):
        part = slice(start, start + _ROWS)
        table.take(codes[part], out=shown[part], mode="clip")  # all codes are within the table
    return shown


@lru_cache(maxsize=64)
def _table(rescale: Any, window: Any, inverted: bool, limits: Any, dtype: Any, bits: int) -> Values:
    """Gray level of every value with ``bits`` bits, indexed by its unsigned representation."""
    codes = np.arange(-(2**bits) if dtype.kind == "i" else 0, 2**bits)
    table = np.zeros(2 ** (8 * dtype.itemsize), dtype=np.uint8)
    table[codes & (len(table) - 1)] = _bytes(Frame(codes, rescale, window, inverted), codes.astype(dtype), limits)
    return table


def _bytes(frame: Frame, stored: Values, limits: tuple[float, float] | None) -> Values:
    """Stored values as gray levels 0 to 255; NaN is black."""
    units = frame.units(stored)
    if limits is None and frame.window is not None:
        share = frame.window(units)
    else:
        low, high = limits or (0.0, 1.0)
        share = (units.astype(np.float64) - low) / max(high - low, 1e-12)
    share = 1 - share if frame.inverted else share
    return np.rint(255 * np.clip(np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0), 0, 1)).astype(np.uint8)
