"""DICOM by pydicom: a file, a file of several frames, or a folder that holds a series."""

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
#: Functional groups of a file of several frames that say how a frame is read.
_GROUPS = (
    *("PixelValueTransformationSequence", "FrameVOILUTSequence"),
    *("PlanePositionSequence", "PlaneOrientationSequence"),
)
#: Transfer syntaxes whose pixels lie in the file as they are, in little-endian order.
_UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.1.99")
#: Elements of a file that hold for frames without such groups of their own.
_DISPLAY = (
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "VOILUTSequence"),
    *("PhotometricInterpretation", "BitsStored", "PixelRepresentation"),
)


def dicom_stack(path: str | os.PathLike[str]) -> Stack:
    """The frames of a DICOM file, along the scan where each says where it lies.

    Raises:
        ImportError: pydicom, or the decoder of its compression, is not installed.
        ValueError: The file holds no picture, or is damaged.
    """
    dataset = _read(path)
    if not any(name in dataset for name in ("PixelData", "FloatPixelData", "DoubleFloatPixelData")):
        what = dataset.get("Modality") or "DICOM without a modality"
        raise ValueError(f"it holds no image ({what})")
    count = int(dataset.get("NumberOfFrames") or 1)
    if count == 1:
        return Stack(1, lambda _: _shot(dataset, 0))
    order = _ordered([_place(_of_frame(dataset, i)) for i in range(count)]) or range(count)
    return Stack(count, lambda position: _shot(dataset, order[position]))


def series_stack(folder: str | os.PathLike[str]) -> Stack:
    """The slices of the one series of DICOM files below a folder, in the order of the scan.

    They go up, back or left, whichever the scan does most, by the position of each; where positions repeat or are
    missing, in the order of their instance numbers.

    Raises:
        ImportError: pydicom is not installed.
        ValueError: There is no series, more than one, or its order is not told.
    """
    files = list(series_files(folder))
    if not files:
        raise ValueError("the folder holds no DICOM files")
    heads = [read_header(path, _ORDER) for path in files]
    series = {str(head.get("SeriesInstanceUID")) for head in heads}
    if len(series) > 1:
        raise ValueError(f"the folder holds {len(series)} DICOM series; name a folder with one of them")
    if len(files) == 1:
        return dicom_stack(files[0])
    if any(int(head.get("NumberOfFrames") or 1) > 1 for head in heads):
        raise ValueError("the folder holds several DICOM files of several frames; name one of them")
    order = _ordered([_place(head) for head in heads]) or _ordered([_instance(head) for head in heads])
    if order is None:
        raise ValueError("its DICOM files have no order: neither positions nor instance numbers differ in all of them")
    return Stack(len(files), lambda position: dicom_stack(files[order[position]]).read(0))


def series_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """The DICOM files below a folder, by their paths; hidden files are left out."""
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
    """Where a DICOM file lies along its scan, in millimetres, or else its instance number; None where it says neither,
    or is damaged.

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
        return pydicom.dcmread(path, force=True, **how)  # also where the first 132 bytes are left out
    except OSError:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise ValueError(str(error) or type(error).__name__) from error


def _instance(head: Any) -> float | None:
    number = head.get("InstanceNumber")
    return float(number) if number not in (None, "") else None


def _place(head: Any) -> float | None:
    """Position along the normal of the slice, which points up, back or left, whichever it does most."""
    position, orientation = head.get("ImagePositionPatient"), head.get("ImageOrientationPatient")
    if position is None or orientation is None or len(position) != 3 or len(orientation) != 6:
        return None
    row, column = np.array(orientation, dtype=float).reshape(2, 3)
    normal = np.cross(row, column)
    return round(float(np.dot(normal * np.sign(normal[np.abs(normal).argmax()]), np.array(position, dtype=float))), 3)


def _ordered(keys: Sequence[float | None]) -> list[int] | None:
    """Positions of the keys in ascending order; None where one is missing or stands twice."""
    known = [key for key in keys if key is not None]
    if len({*known}) < len(keys):
        return None
    return sorted(range(len(keys)), key=lambda i: known[i])


def _of_frame(dataset: Any, index: int) -> Any:
    """What holds for one frame: its own and the shared functional groups, before what the file says of all."""
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
    """One frame: as a picture where its 8 bits are for the screen as they are, else in its own values."""
    photometric = str(dataset.get("PhotometricInterpretation", "MONOCHROME2"))
    values = _uncompressed(dataset, index)
    if values is None:
        values = _decoded(dataset, index)
    if photometric == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        values = apply_color_lut(values, dataset)
        # Entries of 16 bits may hold 8, in their upper half or, in files of big-endian order, their lower.
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
    """Grey values of a frame that lie in the file one after the other, which pydicom would copy twice; else None."""
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
    outside = stored < allocated and (values.max() > highest or (signed and values.min() < lowest))  # such as overlays
    return None if outside else values


def _number(dataset: Any, name: str) -> Any:
    """A whole number of 16 bits as it lies in the file: pydicom's way to it takes as long as reading the pixels."""
    element: Any = dataset.get_item(name) if name in dataset else None
    content = getattr(element, "value", None)
    if isinstance(content, bytes) and len(content) == 2:  # yet unread
        return int.from_bytes(content, "little" if element.is_little_endian else "big")
    return dataset.get(name)


def _decoded(dataset: Any, index: int) -> Values:
    from pydicom.pixels import pixel_array

    try:
        values: Values = pixel_array(dataset, index=index)
    except RuntimeError as error:  # no decoder, or a damaged stream
        reason = " ".join(str(error).split())
        if "missing dependencies" in reason or "plugins are missing" in reason:
            needs = 'DICOM of this compression needs pylibjpeg: pip install "mmfusion[dicom]"'
            raise ImportError(f"{needs}; {reason}") from None
        raise ValueError(reason) from error
    return values


def _rescale(head: Any) -> Callable[[Values], Values] | None:
    """Stored values -> physical units."""
    from pydicom.pixels import apply_modality_lut

    if head.get("ModalityLUTSequence"):
        return partial(apply_modality_lut, ds=head)
    slope, intercept = float(head.get("RescaleSlope") or 1), float(head.get("RescaleIntercept") or 0)
    return None if (slope, intercept) == (1, 0) else Rescale(slope, intercept)


def _window(head: Any) -> Callable[[Values], Values] | None:
    """Physical units -> 0 to 1 by the file's own lookup table or first window."""
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
