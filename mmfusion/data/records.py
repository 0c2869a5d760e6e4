"""Delimited records read one by one, so that a damaged record does not swallow the following ones."""

import csv
import re
from collections.abc import Iterator
from typing import TextIO

from mmfusion.data.sniffing import LONGEST_CELL

#: Maximum number of lines per record; a quote open for longer was never closed.
_MOST_LINES = 10_000

#: Beginning of a csv error message -> message for a record of one line.
_REASONS = {"field larger": f"a cell is longer than {LONGEST_CELL:,} characters", "'": "a quote ends within a cell"}


class Records:
    """The records of a file as ``(cells, error or None)``. A blank line has no cells.

    A quoted cell may contain line breaks. The quote counts as unclosed, and the record as its first line only, if no
    quote follows, if the closing quote is followed by something other than a delimiter, if the record has more or fewer
    cells than the header, or if a line inside looks like a record of its own: as many cells, and those before the
    quoted one of the same pattern, such as ``img_7.jpg``.

    Args:
        file: File opened with ``newline=""``.
        delimiter: Cell separator.
    """

    def __init__(self, file: TextIO, delimiter: str) -> None:
        self._lines, self._delimiter = _Lines(file), delimiter
        self._reader = csv.reader(self._lines, delimiter=delimiter, strict=True)
        self._sound: list[str] = []
        self._width = 0  # number of cells of the header

    def __iter__(self) -> Iterator[tuple[list[str], str | None]]:
        return self

    def __next__(self) -> tuple[list[str], str | None]:
        self._lines.taken = []
        try:
            cells = next(self._reader)
        except csv.Error as error:
            return self._first_alone(str(error))
        if len(self._lines.taken) > 1 and self._swallows(cells):
            return self._first_alone("")
        self._width = self._width or len(cells)
        self._sound = cells or self._sound
        return cells, None

    def _first_alone(self, error: str) -> tuple[list[str], str | None]:
        """Return the first of the lines as a broken record; the others are read again."""
        first, *others = self._lines.taken
        self._lines.waiting += reversed(others)
        alone = (why for start, why in _REASONS.items() if not others and error.startswith(start))
        cells = [cell.strip('"')[:LONGEST_CELL] for cell in first.rstrip("\r\n").split(self._delimiter)]
        return cells, next(alone, "a quote is not closed")

    def _swallows(self, cells: list[str]) -> bool:
        """Whether a record contains others, judging by its cells or by a line that looks like a record."""
        if self._width and len(cells) != self._width:
            return True
        quoted = next(place for place, cell in enumerate(cells) if "\n" in cell or "\r" in cell)
        before = slice(0, quoted) if quoted else slice(1, None)
        likely = list(map(_make, (cells if quoted else self._sound)[before]))
        for line in self._lines.taken[1:]:
            own = line.rstrip('\r\n"').split(self._delimiter)
            if likely and len(own) == self._width and list(map(_make, own[before])) == likely:
                return True
        return False


class _Lines:
    """The lines of a file, pushed-back ones first, each recorded when it is read."""

    def __init__(self, file: TextIO) -> None:
        self._file, self.waiting, self.taken = file, list[str](), list[str]()

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        if len(self.taken) == _MOST_LINES:
            raise StopIteration
        line = self.waiting.pop() if self.waiting else next(self._file)
        self.taken.append(line)
        return line


def _make(cell: str) -> str:
    """Character pattern of a cell, such as ``a_0.a`` for ``img_7.jpg``."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "0", cell.strip('"')))
