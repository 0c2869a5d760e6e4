"""A sentence made from metadata: the part of a row's text that no one has to write."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

_FIELD = re.compile(r"\{([^{}]*)\}")
_SEPARATOR = re.compile(r"([,;.])(?=\s|$)")
_WHOLE_NUMBER = re.compile(r"[+-]?\d+\.0+")
_STRENGTH = {"": 0, ",": 1, ";": 2, ".": 3}


def cell_text(value: Any, missing_values: Iterable[str] = ("", "nan")) -> str | None:
    """One cell as text: stripped, whole numbers without their ``.0``, None when missing.

    Args:
        value: anything a table holds; None, NaN and NaT are missing.
        missing_values: texts (any case) that count as missing.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip()
    if text == "NaT" or text.lower() in missing_values:
        return None
    return text[: text.index(".")] if _WHOLE_NUMBER.fullmatch(text) else text


def cell_number(cell: str | None) -> float | None:
    """The finite number that a cell holds, or None."""
    try:
        number = float(cell) if cell is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class _Template:
    """A parsed template: pieces of text, each with the fields of the bracket it stands in (None outside brackets)."""

    pieces: tuple[tuple[str, frozenset[str] | None], ...]
    fields: tuple[str, ...]


@lru_cache(maxsize=64)
def _parse(template: str) -> _Template:
    if _FIELD.sub("", template).count("{") or _FIELD.sub("", template).count("}"):
        raise ValueError(f"Text template {template!r} has an unpaired brace; write fields as {{column}}.")
    pieces: list[tuple[str, frozenset[str] | None]] = []
    for i, part in enumerate(re.split(r"\[([^\[\]]*)\]", template)):
        if i % 2:
            pieces.append((part, frozenset(_FIELD.findall(part))))
        elif "[" in part or "]" in part:
            raise ValueError(f"Text template {template!r} has an unpaired or nested square bracket.")
        elif part:
            pieces.append((part, None))
    return _Template(tuple(pieces), tuple(dict.fromkeys(_FIELD.findall(template))))


def template_fields(template: str) -> tuple[str, ...]:
    """The columns that a template names, in order of appearance.

    Raises:
        ValueError: an unpaired brace or bracket.
    """
    return _parse(template).fields


def render(template: str, row: Mapping[str, Any], missing_values: Iterable[str] = ("", "nan")) -> str:
    """Fill a template from a row, leaving out what is missing together with the words that belong to it.

    The rules, in order:

    1. A group in square brackets goes when a field in it is missing; otherwise only its brackets go.
    2. The rest is cut into segments at ``,`` ``;`` ``.`` followed by a space or the end.
       A segment all of whose fields are missing goes; a segment without fields stays.
    3. In a segment that stays, a missing field takes along the characters glued to it, such as the ``-year-old`` of
       ``{age}-year-old``.
    4. Between two segments stands the strongest separator of those between them (``.`` over ``;`` over ``,``);
       at the end only a period stays. Spaces are tidied.
    5. With every field of the template missing the text is empty, whatever else the template says.

    Args:
        template: e.g. ``"{age}-year-old {sex}, lesion on the {localization}"``.
        row: column -> value.
        missing_values: texts (any case) that count as missing.

    Raises:
        ValueError: the template names a column that the row does not have, or has an unpaired brace or bracket.
    """
    parsed = _parse(template)
    unknown = [name for name in parsed.fields if name not in row]
    if unknown:
        raise ValueError(
            f"Text template {template!r} names {', '.join(map(repr, unknown))}; the columns are {', '.join(row)}."
        )
    values = {name: cell_text(row[name], missing_values) for name in parsed.fields}
    if parsed.fields and not any(values.values()):
        return ""
    kept = (text for text, group in parsed.pieces if group is None or all(values[name] for name in group))
    # Values go in last, so that a comma in a value cuts nothing.
    *cut, end = _SEPARATOR.split("".join(kept))
    segments = [*zip(cut[::2], cut[1::2], strict=True), (end, "")]

    sentence, pending = "", ""
    for segment, separator in segments:
        text = _fill(segment, values)
        if text:
            sentence += (f"{pending} " if sentence else "") + text
            pending = ""
        pending = max(pending, separator, key=_STRENGTH.__getitem__)
    return sentence + "." if sentence and pending == "." else sentence


def _fill(segment: str, values: Mapping[str, str | None]) -> str:
    fields = _FIELD.findall(segment)
    if fields and not any(values[name] for name in fields):
        return ""
    return " ".join(filter(None, (_fill_word(word, values) for word in _words(segment))))


def _words(segment: str) -> list[str]:
    """Split at spaces outside braces: a column name may hold spaces."""
    return re.findall(r"(?:\{[^{}]*\}|[^\s{])+", segment)


def _fill_word(word: str, values: Mapping[str, str | None]) -> str:
    literals_and_fields = _FIELD.split(word)
    literals, fields = literals_and_fields[::2], literals_and_fields[1::2]
    present = [values[name] is not None for name in fields]
    text = ""
    for i, literal in enumerate(literals):
        left_ok = i == 0 or present[i - 1]
        right_ok = i == len(fields) or present[i]
        text += literal if left_ok and right_ok else ""
        text += (values[fields[i]] or "") if i < len(fields) else ""
    return text


def join_text(sentence: str | None, free_text: str | None) -> str | None:
    """A row's text: the template's sentence, then the free text; None when there is neither."""
    parts = [part.strip() for part in (sentence, free_text) if part and part.strip()]
    if len(parts) < 2:
        return parts[0] if parts else None
    return parts[0] + (" " if parts[0][-1] in ".!?:;," else ". ") + parts[1]
