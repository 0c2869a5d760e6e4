"""Helpers for names: natural order, and the nearest known name for messages."""

import difflib
import re
from collections.abc import Iterable


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts ``resnet18`` before ``resnet101``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name.lower()) if part]


def did_you_mean(name: str, known: list[str]) -> str:
    """End of an error message: the nearest known names, or all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return f"known: {clip(', '.join(known), 600) if known else '(none)'}."


def near(name: str, known: Iterable[str]) -> str | None:
    """The known name most similar to another, ignoring case; None if none is similar."""
    by_key = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_key, n=1, cutoff=0.75)
    return by_key[found[0]] if found else None


def lacking(names: Iterable[str], known: Iterable[str]) -> str:
    """End of an error message for missing names: each with the most similar known one, then those that there are."""
    there = list(dict.fromkeys(known))
    told = [f"{name!r}{f' (is it {it!r}?)' if (it := near(name, there)) else ''}" for name in names]
    return f"{', '.join(told)}; it has {clip(', '.join(there), 600) or 'none'}."


def clip(text: str, most: int = 80) -> str:
    """Shorten a text for a message by cutting its middle."""
    kept = most // 2
    return text if len(text) <= most else f"{text[:kept]}... ({len(text):,} characters) ...{text[-kept:]}"


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless a value is one of its choices."""
    if value not in choices:
        raise ValueError(f"{name}={clip(repr(value))} is not one of {', '.join(map(repr, choices))}.")


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of a library's error in one line of limited length, or its type if empty."""
    text = " ".join(str(error).split())
    told = isinstance(error, ValueError | TypeError | OSError) and text
    return clip(text if told else f"{type(error).__name__} {text}".strip(), most)
