"""The names of ``processor.window``. Light to import."""

from collections.abc import Sequence
from typing import TypeAlias

#: ``auto``, ``full``, ``percentile``, ``dicom``, or [center, width]; None as ``auto``, but that the opacity of pictures
#: of 8 bits is left out, as models read them that were saved without a window.
Window: TypeAlias = str | Sequence[float] | None
WINDOWS = ("auto", "full", "percentile", "dicom")


def check_window(window: Window) -> None:
    """Refuse what is no ``processor.window``, with a ValueError."""
    if window is None or window in WINDOWS:
        return
    numbers = not isinstance(window, str) and len(window) == 2 and all(isinstance(n, int | float) for n in window)
    if not numbers or not window[1] > 0:  # type: ignore[operator]
        raise ValueError(f"processor.window is {', '.join(WINDOWS)} or [center, width], width above 0; got {window!r}.")
