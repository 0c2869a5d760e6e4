"""Reading step: cells that cannot be written as text become problems of their rows."""

from dataclasses import replace
from typing import Any

from mmfusion.data.reading import Reading

#: Bits of the longest integer that is written out; Python rejects more than 4,300 digits.
_MOST_BITS = 14_000


def without_odd_cells(reading: Reading) -> Reading:
    """Mark rows with unwritable cells as broken and escape these cells or set them to missing."""
    raw = reading.raw
    columns, broken = dict(raw.columns), dict(raw.broken)
    for name, cells in raw.columns.items():
        odd = {place: why for place, cell in enumerate(cells) if (why := _why_odd(cell))}
        for place, why in odd.items():
            broken.setdefault(raw.skipped + place + 1, f"the column {name!r} holds {why}")
        if odd:
            columns[name] = [_escaped(cell) if place in odd else cell for place, cell in enumerate(cells)]
    return replace(reading, raw=replace(raw, columns=columns, broken=broken))


def _why_odd(cell: Any) -> str | None:
    if isinstance(cell, str):
        if cell.isascii():
            return "a null character" if "\0" in cell else None
        try:
            cell.encode()
        except UnicodeEncodeError:
            return "an invalid character (a lone surrogate)"
        return "a null character" if "\0" in cell else None
    if cell is None or isinstance(cell, float | bool):
        return None
    if isinstance(cell, int):
        return "a number with too many digits" if cell.bit_length() > _MOST_BITS else None
    try:
        return _why_odd(str(cell))
    except (ValueError, OverflowError, RecursionError) as error:
        return f"a value that cannot be written: {type(error).__name__}"


def _escaped(cell: Any) -> str | None:
    if not isinstance(cell, str):
        return None
    return cell.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
