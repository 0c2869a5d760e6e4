"""Values of ``processor.window`` and ``processor.crop_mode``. Imports no heavy library."""

from collections.abc import Sequence
from typing import TypeAlias

#: ``auto``, ``full``, ``percentile``, ``dicom``, or [center, width]; None is like ``auto``, but ignores the opacity of
#: 8-bit images, as models saved without a window do.
Window: TypeAlias = str | Sequence[float] | None
WINDOWS = ("auto", "full", "percentile", "dicom")

#: Treatment of images that are not square.
CROP_MODES = ("center", "border")


def check_window(window: Window) -> None:
    """Raise ValueError for an invalid ``processor.window``."""
    if window is None or window in WINDOWS:
        return
    numbers = [] if isinstance(window, str) else [n for n in window if isinstance(n, int | float)]
    if len(window) != 2 or len(numbers) != 2 or not numbers[1] > 0:
        raise ValueError(f"processor.window must be {', '.join(WINDOWS)} or [center, width > 0]; got {window!r}.")
