"""One registry for every named part: models, towers, fusion blocks, heads, aggregators and losses.

The registry imports no tensor library: a kind's built-in parts are imported the first time the kind is asked for.
"""

from __future__ import annotations

import fnmatch
import importlib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from mmfusion.names import did_you_mean, natural_key

T = TypeVar("T", bound=Callable[..., Any])

#: kind -> the package whose import registers the built-in parts of that kind.
KINDS: dict[str, str] = {
    "fusion": "mmfusion.fusion",
    "head": "mmfusion.heads",
    "aggregator": "mmfusion.aggregators",
    "image_tower": "mmfusion.towers",
    "text_tower": "mmfusion.towers",
    "tower": "mmfusion.towers",
    "loss": "mmfusion.losses",
    "model": "mmfusion.models",
}

_parts: dict[str, dict[str, Callable[..., Any]]] = {kind: {} for kind in KINDS}


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"Unknown kind {kind!r}; the kinds are {', '.join(KINDS)}.")


def register(kind: str, name: str) -> Callable[[T], T]:
    """Class or function decorator that makes a part available by name.

    Args:
        kind: one of :data:`KINDS`.
        name: the name users type. Registering the same object again under its name is allowed (module reloads);
            taking over another part's name is not.

    Raises:
        ValueError: the kind is unknown, or the name is taken by another part.
    """
    _check_kind(kind)

    def decorate(part: T) -> T:
        if not part.__module__.startswith("mmfusion."):
            importlib.import_module(KINDS[kind])  # the built-in names are taken first
        taken = _parts[kind].get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (part.__module__, part.__qualname__):
            raise ValueError(
                f"The {kind} name {name!r} is taken by {taken.__module__}.{taken.__qualname__}; choose another name."
            )
        _parts[kind][name] = part
        return part

    return decorate


def names(kind: str, pattern: str = "*") -> list[str]:
    """Registered names of a kind that match a wildcard pattern, in natural order.

    Raises:
        ValueError: the kind is unknown.
    """
    _check_kind(kind)
    importlib.import_module(KINDS[kind])
    return sorted(fnmatch.filter(_parts[kind], pattern), key=natural_key)


def get(kind: str, name: str) -> Callable[..., Any]:
    """The class or function registered under a name.

    Raises:
        ValueError: no such name; the message gives the nearest ones.
    """
    known = names(kind)
    if name not in known:
        raise ValueError(f"Unknown {kind} {name!r}; {did_you_mean(name, known)}")
    return _parts[kind][name]


def keywords(part: Callable[..., Any]) -> list[str]:
    """Names of the keywords that a part takes."""
    return [
        p.name for p in inspect.signature(part).parameters.values() if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]


def create(kind: str, name: str, /, *args: Any, **kwargs: Any) -> Any:
    """Build the part registered under ``name``.

    Raises:
        ValueError: no such name.
        TypeError: the part does not take one of the keywords, or misses a required one; the message names the part.
    """
    part = get(kind, name)
    try:
        inspect.signature(part).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{kind} {name!r}: {error}; it takes {', '.join(keywords(part))}.") from None
    return part(*args, **kwargs)


def matches(name: str, pattern: str) -> bool:
    """Whether a name matches a shell wildcard."""
    return fnmatch.fnmatchcase(name, pattern)
