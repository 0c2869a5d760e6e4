"""DICOM files, multi-frame files and series folders, read with pydicom."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mmfusion.images.frames import Frame, OwnWindow, Rescale, Shot, Stack, Values, of_extra
from mmfusion.images.kinds import image_kind, may_be_dicom

#: Elements that order the slices of a series.
_ORDER = ("ImagePositionPatient", "ImageOrientationPatient", "InstanceNumber", "SeriesInstanceUID", "NumberOfFrames")
#: Functional groups of multi-frame files that describe how to read a frame.
_GROUPS = (
    *("PixelValueTransformationSequence", "FrameVOILUTSequence"),
    *("PlanePositionSequence", "PlaneOrientationSequence"),
)
#: Uncompressed transfer syntaxes in little-endian order.
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")
#: Elements of the file that apply to frames without their own groups.
_DISPLAY = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation"),
)


def dicom_stack(path: str | os.PathLike[str]) -> Stack:
    """The frames of a DICOM file, ordered along the scan if they have positions.

    Raises:
        ImportError: pydicom, or the decoder of its compression, is not installed.
        ValueError: The file has no image, or is damaged.
    """
    dataset = _read(path)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        what = dataset.get("Modality") or "DICOM without a modality"
        raise ValueError(f"it has no image ({what})")
    count = int(dataset.get("NumberOfFrames") or 1)
    if count == 1:
        return Stack(1, lambda _: _shot(dataset, 0))
    order = _ordered([_place(_of_frame(dataset, i)) for i in range(count)]) or range(count)
    return Stack(count, lambda position: _shot(dataset, order[position]))


def series_stack(folder: str | os.PathLike[str]) -> Stack:
    """The slices of the single DICOM series in a folder, in scan order.

    They go up, back or left, whichever is the main direction, by position; if positions repeat or are missing, by
    instance number.

    Raises:
        ImportError: pydicom is not installed.
        ValueError: There is no series or more than one, or its order is unknown.
    """
    files = list(series_files(folder))
    if not files:
        raise ValueError("the folder has no DICOM files")
    heads = [read_header(path, _ORDER) for path in files]
    series = {str(head.get("SeriesInstanceUID")) for head in heads}
    if len(series) > 1:
        raise ValueError(f"the folder has {len(series)} DICOM series; use a folder with one of them")
    if len(files) == 1:
        return dicom_stack(files[0])
    if any(int(head.get("NumberOfFrames") or 1) > 1 for head in heads):
        raise ValueError("the folder has several multi-frame DICOM files; use one of them")
    order = _ordered([_place(head) for head in heads]) or _ordered([_instance(head) for head in heads])
    if order is None:
        raise ValueError("its DICOM files cannot be ordered: positions and instance numbers are missing or repeated")
    return Stack(len(files), lambda position: dicom_stack(files[order[position]]).read(0))


def series_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """The DICOM files in a folder, recursively, sorted by path; hidden files are skipped."""
    paths = [Path(base) / name for base, _, names in os.walk(folder) for name in names if not name.startswith(".")]
    return (path for path in sorted(paths) if may_be_dicom(path.name) and image_kind(path) == "dicom")


def read_header(path: str | os.PathLike[str], elements: Sequence[str]) -> Any:
    """The named elements of a DICOM file, without its pixels, as a mapping.

    Raises:
        ImportError: pydicom is not installed.
        ValueError: The file is damaged.
    """
    return _read(path, stop_before_pixels=True, specific_tags=list(elements))


def place_in_series(path: str | os.PathLike[str]) -> float | None:
    """Position of a DICOM file along its scan in millimeters, or else its instance number; None if both are missing or
    the file is damaged.

    Raises:
        ImportError: pydicom is not installed.
    """
    try:
        head = read_header(path, _ORDER)
    except ValueError:
        return None
    place = _place(head)
    return place if place is not None else _instance(head)


def _read(path: str | os.PathLike[str], **how: Any) -> Any:
    with of_extra("dicom", path, "a DICOM file"):
        import pydicom
    try:
        return pydicom.dcmread(path, force=True, **how)  # also without the 132-byte preamble
    except OSError:
        raise
    except Exception as error:  # damaged files may raise anything
        raise ValueError(str(error) or type(error).__name__) from error


def _instance(head: Any) -> float | None:
    number = head.get("InstanceNumber")
    return float(number) if number not in (None, "") else None


def _place(head: Any) -> float | None:
    """Position along the slice normal, which points up, back or left, whichever is its main direction."""
    position, orientation = head.get("ImagePositionPatient"), head.get("ImageOrientationPatient")
    if position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        return None
    row, column = np.array(orientation, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    return round(float(np.dot(normal * np.sign(normal[np.abs(normal).argmax()]), np.array(position, dtype=float))), 3)


def _ordered(keys: Sequence[float | None]) -> list[int] | None:
    """Indices that sort the keys; None if a key is missing or repeated."""
    known = [key for key in keys if key is not None]
    if len({*known}) < len(keys):
        return None
    return sorted(range(len(keys)), key=lambda i: known[i])


def _of_frame(dataset: Any, index: int) -> Any:
    """Attributes of one frame: its own and the shared functional groups, before those of the file."""
    groups = [
        *(dataset.get("SharedFunctionalGroupsSequence") or [])[:1],
        *(dataset.get("PerFrameFunctionalGroupsSequence") or [])[index : index + 1],
    ]
    own = {name: item for group in groups for name in _GROUPS for item in (group.get(name) or [])[:1]}
    if not own:
        return dataset
    from pydicom import Dataset

    merged: Any = Dataset()
    merged.file_meta = dataset.file_meta
    for name in _DISPLAY:
        if name in dataset:
            merged[name] = dataset[name]
    for item in own.values():
        merged.update(item)
    return merged


def _shot(dataset: Any, index: int) -> Shot:
    """One frame: as an 8-bit image if its values are display-ready, else with its original values."""
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    values = _uncompressed(dataset, index)
    if values is None:
        values = _decoded(dataset, index)
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        values = apply_color_lut(values, dataset)
        # 16-bit entries may hold 8 bits, in the upper half or, in big-endian files, in the lower one.
        return Image.fromarray((values >> 8 if values.max() > 255 else values).astype(np.uint8))
    if values.ndim == 3:
        return Image.fromarray(values) if values.dtype == np.uint8 else Frame(values)
    head = _of_frame(dataset, index)
    rescale, window = _rescale(head), _window(head)
    inverted = photometric == "MONOCHROME1"
    if values.dtype == np.uint8 and rescale is None and window is None:
        bits = int(dataset.get("BitsStored", 8))
        screen = values if bits == 8 else (values * (255 / (2**bits - 1))).round().astype(np.uint8)
        return Image.fromarray(255 - screen if inverted else screen)
    return Frame(values, rescale, window, inverted, _padding(dataset))


def _uncompressed(dataset: Any, index: int) -> Values | None:
    """Gray values of a contiguous uncompressed frame, which pydicom would copy twice; else None."""
    if str(dataset.file_meta.get("TransferSyntaxUID")) not in _UNCOMPRESSED or _number(dataset, "SamplesPerPixel") != 1:
        return None
    allocated, stored, highest_bit = (_number(dataset, name) for name in ("BitsAllocated", "BitsStored", "HighBit"))
    signed, content = _number(dataset, "PixelRepresentation"), dataset.get("PixelData")
    if allocated not in (8, 16) or signed not in (0, 1) or highest_bit != stored - 1 or content is None:
        return None
    shape = _number(dataset, "Rows") or 0, _number(dataset, "Columns") or 0
    count, size = shape[0] * shape[1], allocated // 8
    if not count or len(content) < (index + 1) * count * size:
        return None
    values = np.frombuffer(content, f"<{'iu'[1 - signed]}{size}", count, index * count * size).reshape(shape)
    lowest, highest = (-(2 ** (stored - 1)), 2 ** (stored - 1) - 1) if signed else (0, 2**stored - 1)
    outside = stored < allocated and (values.max() > highest or (signed and values.min() < lowest))  # e.g. overlays
    return None if outside else values


def _number(dataset: Any, name: str) -> Any:
    """A 16-bit integer read directly, since pydicom's conversion takes as long as reading the pixels."""
    element: Any = dataset.get_item(name) if name in dataset else None
    content = getattr(element, "value", None)
    if isinstance(content, bytes) and len(content) == 2:  # not yet converted
        return int.from_bytes(content, "little" if element.is_little_endian else "big")
    return dataset.get(name)


def _decoded(dataset: Any, index: int) -> Values:
    from pydicom.pixels import pixel_array

    try:
        values: Values = pixel_array(dataset, index=index)
    except RuntimeError as error:  # no decoder, or a damaged stream
        reason = " ".join(str(error).split())
        if "missing dependencies" in reason or "plugins are missing" in reason:
            needs = 'this DICOM compression needs pylibjpeg: pip install "mmfusion[dicom]"'
            raise ImportError(f"{needs}; {reason}") from None
        raise ValueError(reason) from error
    return values


def _rescale(head: Any) -> Callable[[Values], Values] | None:
    """Map from stored values to physical units."""
    from pydicom.pixels import apply_modality_lut

    if head.get("ModalityLUTSequence"):
        return partial(apply_modality_lut, ds=head)
    slope, intercept = float(head.get("RescaleSlope") or 1), float(head.get("RescaleIntercept") or 0)
    return None if (slope, intercept) == (1, 0) else Rescale(slope, intercept)


def _window(head: Any) -> Callable[[Values], Values] | None:
    """Map from physical units to 0-1 by the file's lookup table or first window."""
    if tables := head.get("VOILUTSequence"):
        return partial(_looked_up, head, float(2 ** int(tables[0].LUTDescriptor[2]) - 1))
    center, width = _first(head.get("WindowCenter")), _first(head.get("WindowWidth"))
    if center is None or width is None:
        return None
    function = str(head.get("VOILUTFunction") or "LINEAR").upper()
    return OwnWindow(center, width, function)


def _first(value: Any) -> float | None:
    values = [value] if isinstance(value, int | float | str) or value is None else list(value)
    return float(values[0]) if values and values[0] not in (None, "") else None


def _looked_up(head: Any, highest: float, units: Values) -> Values:
    from pydicom.pixels import apply_voi_lut

    shown: Values = apply_voi_lut(units, head)
    return shown / highest


def _padding(dataset: Any) -> tuple[float, float] | None:
    value = dataset.get("PixelPaddingValue")
    if not isinstance(value, int):
        return None
    limit = dataset.get("PixelPaddingRangeLimit")
    ends = (value, limit if isinstance(limit, int) else value)
    return float(min(ends)), float(max(ends))
