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
    """Linear map from stored values to physical units."""

    slope: float
    intercept: float

    def __call__(self, stored: Values) -> Values:
        return stored * self.slope + self.intercept


@dataclass(frozen=True)
class OwnWindow:
    """A file's display window, mapping physical units to 0-1 (DICOM PS3.3, C.11.2.1).

    Raises:
        ValueError: The window is too narrow, or its function is unknown.
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
    """One slice with its original values.

    Attributes:
        values: (H, W) gray values or (H, W, 3) colors as stored, in native byte order.
        rescale: Map from stored values to physical units, such as Hounsfield units, or None.
        window: The file's map from physical units to 0-1 for display, or None.
        inverted: Whether small values are bright.
        padding: Smallest and largest stored value of padding.
        alpha: (H, W) opacity, 0 to 1.

    Raises:
        ValueError: The values are complex or structured.
    """

    values: Values
    rescale: Callable[[Values], Values] | None = None
    window: Callable[[Values], Values] | None = None
    inverted: bool = False
    padding: tuple[float, float] | None = None
    alpha: Values | None = None

    def __post_init__(self) -> None:
        if self.values.dtype.kind not in "biuf":
            raise ValueError(f"its values have the type {self.values.dtype}, not gray values")
        native = self.values.dtype.newbyteorder("=")
        object.__setattr__(self, "values", self.values.astype(native, copy=False))

    @cached_property
    def ends(self) -> tuple[float, float] | None:
        """The smallest and largest value; None if there are no numbers."""
        real = self.values[np.isfinite(self.values)] if self.values.dtype.kind == "f" else self.values
        return (real.min().item(), real.max().item()) if real.size else None

    @property
    def is_plain(self) -> bool:
        """Whether the map to gray levels has only a few parameters, which other slices may share."""
        return isinstance(self.rescale, Rescale | None) and isinstance(self.window, OwnWindow | None)

    def units(self, stored: Values) -> Values:
        """Convert stored values to physical units."""
        return stored if self.rescale is None else self.rescale(stored)


#: A slice with its original values, or a display-ready 8-bit image.
Shot: TypeAlias = Frame | Image.Image


@dataclass(frozen=True)
class Stack:
    """The slices of one file in order.

    Attributes:
        count: Number of slices.
        read: Index -> the slice, decoded on access.
    """

    count: int
    read: Callable[[int], Shot]


@contextmanager
def of_extra(extra: str, path: str | os.PathLike[str], kind: str) -> Iterator[None]:
    """Context for importing a library that reads a format.

    Args:
        extra: Extra of this package that installs it.
        path: File to read, for the message.
        kind: Kind of file, for the message.

    Raises:
        ImportError: The library is not installed; the message names the format and the extra.
    """
    try:
        yield
    except ImportError as error:
        needs = f"{os.path.basename(path)} is {kind}, and reading it needs {str(error.name).split('.')[0]}"
        raise ImportError(f'{needs}: pip install "mmfusion[{extra}]".') from None
