"""Names of ``processor.window`` and ``processor.crop_mode``. Light to import."""

from collections.abc import Sequence
from typing import TypeAlias

#: ``auto``, ``full``, ``percentile``, ``dicom``, or [center, width]; None as ``auto``, but that the opacity of pictures
#: of 8 bits is left out, as models read them that were saved without a window.
Window: TypeAlias = str | Sequence[float] | None
WINDOWS = ("auto", "full", "percentile", "dicom")

#: what becomes of an image that is no square: its center square is cut out, or it gets a border.
CROP_MODES = ("center", "border")


def check_window(window: Window) -> None:
    """Refuse what is no ``processor.window``, with a ValueError."""
    if window is None or window in WINDOWS:
        return
    numbers = [] if isinstance(window, str) else [n for n in window if isinstance(n, int | float)]
    if len(window) != 2 or len(numbers) != 2 or not numbers[1] > 0:
        raise ValueError(f"processor.window is {', '.join(WINDOWS)} or [center, width], width above 0; got {window!r}.")
