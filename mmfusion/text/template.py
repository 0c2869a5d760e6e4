"""Sentences from metadata by a template."""

import math
import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

_FIELD = re.compile(r"\{([^{}]*)\}")
_SEPARATOR = re.compile(r"([,;.])(?=\s|$)")
_WHOLE_NUMBER = re.compile(r"[+-]?\d+\.0+")
_STRENGTH = {"": 0, ",": 1, ";": 2, ".": 3}


def cell_text(value: Any, missing_values: Iterable[str] = ("", "nan")) -> str | None:
    """One cell as text: stripped, whole numbers without their ``.0``, None when missing.

    Args:
        value: Any cell value; None, NaN, NaT and pandas' NA are missing.
        missing_values: Lower-case texts that count as missing, whatever the cell's case.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip()
    if text in ("NaT", "<NA>") or text.lower() in missing_values:
        return None
    return text[: text.index(".")] if _WHOLE_NUMBER.fullmatch(text) else text


def free_text(value: Any) -> str | None:
    """The free text of a row, formatted by :func:`cell_text`.

    Raises:
        TypeError: It is bytes, a list or another collection.
        ValueError: It contains a lone surrogate (half of a character).
    """
    if isinstance(value, Iterable) and not isinstance(value, str):
        raise TypeError(f"The text of a row must be a string; got {type(value).__name__}.")
    text = cell_text(value)
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise ValueError("The text contains half of a character (a lone surrogate).") from None
    return text


def cell_number(cell: str | None) -> float | None:
    """The finite number in a cell, or None."""
    try:
        number = float(cell) if cell is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None


@lru_cache(maxsize=64)
def _parse(template: str) -> tuple[list[tuple[str, list[str]]], tuple[str, ...]]:
    """A template's pieces, each with the fields that it depends on (those of its bracket), and all its fields."""
    if {"{", "}"} & set(_FIELD.sub("", template)):
        raise ValueError(f"Text template {template!r} has an unpaired brace; write fields as {{column}}.")
    parts = re.split(r"\[([^\[\]]*)\]", template)
    if {"[", "]"} & set("".join(parts[::2])):
        raise ValueError(f"Text template {template!r} has an unpaired or nested square bracket.")
    pieces = [(part, _FIELD.findall(part) if i % 2 else []) for i, part in enumerate(parts)]
    return pieces, tuple(dict.fromkeys(_FIELD.findall(template)))


def template_fields(template: str) -> tuple[str, ...]:
    """The columns that a template names, in order of appearance.

    Raises:
        ValueError: An unpaired brace or bracket.
    """
    return _parse(template)[1]


def render(template: str, row: Mapping[str, Any], missing_values: Iterable[str] = ("", "nan")) -> str:
    """Fill a template from a row, leaving out missing fields together with the words that belong to them.

    The rules, in order:

    1. A group in square brackets is dropped if a field in it is missing; otherwise only its brackets are.
    2. The rest is cut into segments at ``,`` ``;`` ``.`` followed by a space or the end.
       A segment with fields, all of them missing, is dropped.
    3. In a remaining segment, a missing field is dropped with the characters attached to it, such as the ``-year-old``
       of ``{age}-year-old``.
    4. Two segments are joined by the strongest separator between them (``.`` over ``;`` over ``,``);
       at the end only a period is kept. Spaces are tidied.
    5. If all fields are missing, the text is empty.

    Args:
        template: Such as ``"{age}-year-old {sex}, lesion on the {localization}"``.
        row: Column -> value.
        missing_values: Lower-case texts that count as missing, whatever the cell's case.

    Raises:
        ValueError: The template names a column that the row does not have, or has an unpaired brace or bracket.
    """
    pieces, fields = _parse(template)
    if unknown := ", ".join(repr(name) for name in fields if name not in row):
        raise ValueError(f"Text template {template!r} names {unknown}; the columns are {', '.join(row)}.")
    values = {name: cell_text(row[name], missing_values) for name in fields}
    if fields and not any(values.values()):
        return ""
    kept = (text for text, group in pieces if all(values[name] for name in group))
    # Values are inserted last, so that a comma in a value does not split a segment.
    *cut, end = _SEPARATOR.split("".join(kept))
    segments = [*zip(cut[::2], cut[1::2], strict=True), (end, "")]

    sentence, pending = "", ""
    for segment, separator in segments:
        if text := _fill(segment, values):
            sentence += (f"{pending} " if sentence else "") + text
            pending = ""
        pending = max(pending, separator, key=_STRENGTH.__getitem__)
    return sentence + "." if sentence and pending == "." else sentence


def _fill(segment: str, values: Mapping[str, str | None]) -> str:
    fields = _FIELD.findall(segment)
    if fields and not any(values[name] for name in fields):
        return ""
    # Split at spaces outside braces: a column name may contain spaces.
    words = re.findall(r"(?:\{[^{}]*\}|[^\s{])+", segment)
    return " ".join(filter(None, (_fill_word(word, values) for word in words)))


def _fill_word(word: str, values: Mapping[str, str | None]) -> str:
    literals, fields = _FIELD.split(word)[::2], _FIELD.split(word)[1::2]
    filled = ["", *(values[name] for name in fields), ""]
    return "".join(
        ("" if before is None or after is None else literal) + (after or "")
        for before, literal, after in zip(filled, literals, filled[1:], strict=False)
    )


def join_text(sentence: str | None, free_text: str | None) -> str | None:
    """A row's text: the template's sentence, then the free text; None when there is neither."""
    parts = [part.strip() for part in (sentence, free_text) if part and part.strip()]
    if len(parts) < 2:
        return parts[0] if parts else None
    return parts[0] + (" " if parts[0][-1] in ".!?:;," else ". ") + parts[1]
