"""Conversion of nested dataclasses to plain values for JSON, and back.

A field marked :data:`FLAT` is merged into its parent, one marked :data:`OPTIONAL` is omitted if None, and one marked
:data:`TRANSIENT` is always omitted.
"""

from dataclasses import fields, is_dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

FLAT = {"flat": True}
OPTIONAL = {"optional": True}
TRANSIENT = {"transient": True}


def to_plain(value: Any) -> Any:
    """Convert dataclasses to dicts, recursively."""
    if isinstance(value, dict):
        return {key: to_plain(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [to_plain(entry) for entry in value]
    if not is_dataclass(value):
        return value
    result: dict[str, Any] = {}
    for f in fields(value):
        if f.metadata.get("transient"):
            continue
        entry = getattr(value, f.name)
        if f.metadata.get("flat"):
            result |= to_plain(entry)
        elif entry is not None or not f.metadata.get("optional"):
            result[f.name] = to_plain(entry)
    return result


def from_plain(hint: Any, value: Any) -> Any:
    """Convert the result of :func:`to_plain` back to the given type."""
    if value is None:
        return None
    if get_origin(hint) in (Union, UnionType):  # a type or None
        hint = get_args(hint)[0]
    if get_origin(hint) is dict:
        return {key: from_plain(get_args(hint)[1], entry) for key, entry in value.items()}
    if get_origin(hint) is list:
        return [from_plain(get_args(hint)[0], entry) for entry in value]
    if not is_dataclass(hint):
        return value
    hints, parts = get_type_hints(hint), fields(hint)
    own = {f.name for f in parts if not f.metadata.get("flat")}
    given = {f.name: {key: value[key] for key in value if key not in own} for f in parts if f.name not in own}
    given |= {name: value[name] for name in own if name in value}
    build: Any = hint
    return build(**{name: from_plain(hints[name], entry) for name, entry in given.items()})
