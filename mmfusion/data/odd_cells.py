"""A step of reading: cells that no text can be made of become problems of their rows."""

from dataclasses import replace
from typing import Any

from mmfusion.data.reading import Reading

#: bits of the longest whole number that is written out; Python refuses more than 4,300 digits.
_MOST_BITS = 14_000


def without_odd_cells(reading: Reading) -> Reading:
    """Leave only cells that can be written: a row with others is broken, and they are missing or escaped."""
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
            return "a character with the number 0" if "\0" in cell else None
        try:
            cell.encode()
        except UnicodeEncodeError:
            return "half of a character (a lone surrogate)"
        return "a character with the number 0" if "\0" in cell else None
    if cell is None or isinstance(cell, float | bool):
        return None
    if isinstance(cell, int):
        return "a number of too many digits" if cell.bit_length() > _MOST_BITS else None
    try:
        return _why_odd(str(cell))
    except (ValueError, OverflowError, RecursionError) as error:
        return f"what cannot be written: {type(error).__name__}"


def _escaped(cell: Any) -> str | None:
    if not isinstance(cell, str):
        return None
    return cell.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
