"""Nested configuration dataclasses: built from parsed values, changed by dotted names, written as a command line."""

import argparse
import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, fields, is_dataclass
from typing import Any, TypeVar, cast, get_type_hints

from mmfusion.names import did_you_mean

T = TypeVar("T")


def build(cls: type[T], values: Any) -> T:
    """Build nested dataclasses from values that a parser has checked.

    jsonargparse's ``instantiate`` would also create objects of any class named by a value of type Any.
    """
    hints, names = get_type_hints(cls), [f.name for f in fields(cast(Any, cls))]
    return cls(**{n: build(hints[n], values[n]) if is_dataclass(hints[n]) else values[n] for n in names})


def leaves(cls: type, prefix: str = "") -> Iterator[tuple[str, Any, bool]]:
    """Yield the settings of nested dataclasses: dotted name, type, and whether it is required."""
    hints = get_type_hints(cls)
    for f in fields(cast(Any, cls)):
        hint = hints[f.name]
        required = f.default is MISSING and f.default_factory is MISSING
        if is_dataclass(hint):
            for name, inner, needed in leaves(cast(type, hint), f"{prefix}{f.name}."):
                yield name, inner, needed and required
        else:
            yield prefix + f.name, hint, required


def with_settings(config: T, settings: Mapping[str, Any]) -> T:
    """Change settings of a configuration, with the type checks of a configuration file.

    Args:
        config: A configuration dataclass, e.g. ``RunConfig``.
        settings: Dotted name -> value (``{"train.lr": 1e-4}``); dicts can be changed by keyword
            (``model.head_args.dropout``) or as a whole.

    Raises:
        ValueError: A setting is unknown, or a value has the wrong type.
    """
    from jsonargparse import ArgumentParser

    values = asdict(cast(Any, config))
    for name, value in settings.items():
        _set(values, type(config), name, value)
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(type(config), None)
    try:
        parsed = parser.parse_object(values)
    except argparse.ArgumentError as error:
        raise ValueError(f"The settings {dict(settings)} are invalid: {' '.join(str(error).split())}") from None
    return build(type(config), parsed)


def _set(values: dict[str, Any], cls: Any, name: str, value: Any) -> None:
    """Change one value in place. Keys inside a dict are not checked here, but by the part that uses them."""
    *path, last = name.split(".")
    node, owner = values, cls
    for i, part in enumerate([*path, last]):
        if owner is not None and part not in node:
            raise ValueError(f"Unknown setting {name!r}; {did_you_mean(part, list(node))}")
        if i == len(path):
            node[last] = value
            return
        hint = get_type_hints(owner)[part] if owner is not None else None
        owner = hint if is_dataclass(hint) else None
        if owner is None and not isinstance(node.get(part), dict):
            if node.get(part) is not None or "dict" not in str(hint or "dict"):
                raise ValueError(f"Unknown setting {name!r}; {'.'.join(path[: i + 1])} has no parts.")
            node[part] = {}
        node = node[part]


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to dotted keys; an empty dict is kept as a value."""
    result: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        result |= flat(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return result


def command_line(command: str, config: Any) -> str:
    """The shell command for these options, without defaults: ``mmfusion predict --tta true``."""

    def words(values: Any, prefix: str = "--") -> Iterator[str]:
        for f in fields(values):
            value = getattr(values, f.name)
            default = f.default_factory() if f.default_factory is not MISSING else f.default
            if is_dataclass(value):
                yield from words(value, f"{prefix}{f.name}.")
            elif value != default:
                of_words = isinstance(value, list) and value and all(isinstance(item, str) for item in value)
                items = value if of_words else [value]
                yield from (prefix + f.name, *(item if isinstance(item, str) else json.dumps(item) for item in items))

    return shlex.join(["mmfusion", command, *words(config)])
