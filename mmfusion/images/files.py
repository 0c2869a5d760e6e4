"""Reads the slices of an image with the reader for its format."""

import os
from collections.abc import Callable
from typing import Any

from mmfusion.images.dicom_files import dicom_stack, series_stack
from mmfusion.images.frames import Shot, Stack
from mmfusion.images.kinds import image_kind
from mmfusion.images.picture_files import heic_stack, picture_stack
from mmfusion.images.slices import chosen_slices, one_slice
from mmfusion.images.volume_files import itk_stack, nifti_stack

_READERS: dict[str, Callable[[Any], Stack]] = {
    "series": series_stack,
    "dicom": dicom_stack,
    "nifti": nifti_stack,
    "itk": itk_stack,
    "heic": heic_stack,
}


def read_slice(path: str | os.PathLike[str], choice: int | str | None, size: int | None = None) -> Shot:
    """Read one slice of a file.

    Args:
        path: File, or the folder of a DICOM series.
        choice: Index of the slice, or ``middle``; None accepts only files with a single slice.
        size: As in :func:`~mmfusion.images.opening.open_image`.

    Raises:
        ValueError: There are several slices and no choice.
    """
    stack = _stack(path, size)
    return stack.read(one_slice(choice, stack.count))


def read_slices(path: str | os.PathLike[str], choice: int | str | None, size: int | None = None) -> list[Shot]:
    """Read the slices of a file in order, each decoded once.

    Args:
        path: File, or the folder of a DICOM series.
        choice: Selection, as in :func:`~mmfusion.images.slices.chosen_slices`; None reads all.
        size: As in :func:`~mmfusion.images.opening.open_image`.

    Raises:
        ValueError: The selection is empty.
    """
    stack = _stack(path, size)
    positions = chosen_slices(choice, stack.count) if stack.count > 1 else [0]
    if not positions:
        raise ValueError(f"it has {stack.count} slices, but dataset.slices {choice} selects none of them")
    return [stack.read(position) for position in positions]


def _stack(path: str | os.PathLike[str], size: int | None) -> Stack:
    kind = image_kind(path)
    return picture_stack(path, size) if kind == "picture" else _READERS[kind](path)
