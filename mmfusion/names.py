"""Names as people read and mistype them: natural order, and the nearest known name."""

import difflib
import re
from collections.abc import Iterable


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key under which ``resnet18`` comes before ``resnet101``."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name.lower()) if part]


def did_you_mean(name: str, known: list[str]) -> str:
    """The end of an error message: the nearest of the known names, or all of them."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if near:
        return f"did you mean {' or '.join(repr(n) for n in near)}?"
    return f"known: {clip(', '.join(known), 600) if known else '(none)'}."


def near(name: str, known: Iterable[str]) -> str | None:
    """The known name that another is most likely meant for, whatever its case; None where none is like it."""
    by_key = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_key, n=1, cutoff=0.75)
    return by_key[found[0]] if found else None


def clip(text: str, most: int = 80) -> str:
    """A text for a message, cut in its middle where it is longer than so many characters."""
    kept = most // 2
    return text if len(text) <= most else f"{text[:kept]}... ({len(text):,} characters) ...{text[-kept:]}"


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless a keyword's value is one of its choices."""
    if value not in choices:
        raise ValueError(f"{name}={clip(repr(value))} is not one of {', '.join(map(repr, choices))}.")


def one_line(error: BaseException, most: int = 300) -> str:
    """What an error of some library says, in one line of so many characters; its kind where it says nothing."""
    text = " ".join(str(error).split())
    told = isinstance(error, ValueError | TypeError | OSError) and text
    return clip(text if told else f"{type(error).__name__} {text}".strip(), most)
