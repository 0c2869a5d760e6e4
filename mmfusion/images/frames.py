"""Output of image readers: the slices of a file with its original values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

Values: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True)
class Rescale:
    """Stored values in physical units: times a slope, plus an intercept."""

    slope: float
    intercept: float

    def __call__(self, stored: Values) -> Values:
        return stored * self.slope + self.intercept


@dataclass(frozen=True)
class OwnWindow:
    """Physical units as a file's window shows them, 0 to 1 (DICOM PS3.3, C.11.2.1).

    Raises:
        ValueError: The window is too narrow, or its function unknown.
    """

    center: float
    width: float
    function: str = "LINEAR"

    def __post_init__(self) -> None:
        if self.function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            raise ValueError(f"its window has the unknown function {self.function}")
        if self.width <= 0 or (self.width < 1 and self.function == "LINEAR"):
            raise ValueError(f"its window has a width of {self.width:g}")

    def __call__(self, units: Values) -> Values:
        values = units.astype(np.float64)
        if self.function == "SIGMOID":
            return 1 / (1 + np.exp(-4 * (values - self.center) / self.width))
        half = 0.5 if self.function == "LINEAR" else 0.0
        center, width = self.center - half, self.width - 2 * half
        return (values - center) / width + 0.5 if width > 0 else (values > center).astype(np.float64)


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice whose values are not yet those of a screen.

    Attributes:
        values: (H, W) grey values, or (H, W, 3) colors, as the file stores them, but in the byte order of the machine.
        rescale: Stored values -> physical units, such as Hounsfield units; None where they are the same.
        window: Physical units -> 0 to 1, as the file says that it is to be shown; None where it does not say.
        inverted: Whether small values are bright.
        padding: Smallest and largest stored value that fills what was not recorded.
        alpha: (H, W) opacity, 0 to 1.

    Raises:
        ValueError: The values are complex, or of several parts.
    """

    values: Values
    rescale: Callable[[Values], Values] | None = None
    window: Callable[[Values], Values] | None = None
    inverted: bool = False
    padding: tuple[float, float] | None = None
    alpha: Values | None = None

    def __post_init__(self) -> None:
        if self.values.dtype.kind not in "biuf":
            raise ValueError(f"its values are of the kind {self.values.dtype}, and no grey values")
        native = self.values.dtype.newbyteorder("=")
        object.__setattr__(self, "values", self.values.astype(native, copy=False))

    @cached_property
    def ends(self) -> tuple[float, float] | None:
        """The smallest and the largest value; None where none is a number."""
        real = self.values[np.isfinite(self.values)] if self.values.dtype.kind == "f" else self.values
        return (real.min().item(), real.max().item()) if real.size else None

    @property
    def is_plain(self) -> bool:
        """Whether what turns values into grey is told by a few numbers, which other slices may share."""
        return isinstance(self.rescale, Rescale | None) and isinstance(self.window, OwnWindow | None)

    def units(self, stored: Values) -> Values:
        """Stored values in physical units."""
        return stored if self.rescale is None else self.rescale(stored)


#: A slice in its own values, or a picture of 8 bits that is to be shown as it is.
Shot: TypeAlias = Frame | Image.Image


@dataclass(frozen=True)
class Stack:
    """The slices of one file in their order.

    Attributes:
        count: Number of slices.
        read: Position -> the slice, decoded when it is asked for.
    """

    count: int
    read: Callable[[int], Shot]


@contextmanager
def of_extra(extra: str, path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Imports of a library that reads a format.

    Args:
        extra: Extra of this package that brings it.
        path: File to read, for the message.
        kind: What the file is, for the message.

    Raises:
        ImportError: It is not installed; the line names the format and the extra.
    """
    try:
        yield
    except ImportError as error:
        needs = f"{os.path.basename(path)} is {kind}, and reading it needs {str(error.name).split('.')[0]}"
        raise ImportError(f'{needs}: pip install "mmfusion[{extra}]".') from None
