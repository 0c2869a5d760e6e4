"""What a reader of image files hands on: the slices of a file, each in the file's own values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

Values: TypeAlias = "np.ndarray[Any, Any]"


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice whose values are not yet those of a screen.

    Attributes:
        values: (H, W) grey values, or (H, W, 3) colors, as the file stores them.
        rescale: Stored values -> physical units, such as Hounsfield units; None where they are the same.
        window: Physical units -> 0 to 1, as the file says that it is to be shown; None where it does not say.
        inverted: Whether small values are bright.
        padding: Smallest and largest stored value that fills what was not recorded.
        alpha: (H, W) opacity, 0 to 1.
    """

    values: Values
    rescale: Callable[[Values], Values] | None = None
    window: Callable[[Values], Values] | None = None
    inverted: bool = False
    padding: tuple[float, float] | None = None
    alpha: Values | None = None

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
