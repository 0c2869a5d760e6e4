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
    return f"known: {', '.join(known) if known else '(none)'}."


def near(name: str, known: Iterable[str]) -> str | None:
    """The known name that another is most likely meant for, whatever its case; None where none is like it."""
    by_key = {other.casefold(): other for other in known}
    found = difflib.get_close_matches(name.casefold(), by_key, n=1, cutoff=0.75)
    return by_key[found[0]] if found else None


def check_choice(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raise ValueError unless a keyword's value is one of its choices."""
    if value not in choices:
        raise ValueError(f"{name}={value!r} is not one of {', '.join(map(repr, choices))}.")


def one_line(error: BaseException, most: int = 300) -> str:
    """What an error of some library says, in one line of so many characters; its kind where it says nothing."""
    text = " ".join(str(error).split())
    text = (
        text
        if isinstance(error, ValueError | TypeError | OSError) and text
        else f"{type(error).__name__} {text}".strip()
    )
    return text if len(text) <= most else f"{text[: most - 3]}..."
