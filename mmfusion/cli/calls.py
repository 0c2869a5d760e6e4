"""Commands called from Python: keywords are converted to the words of the command line."""

import argparse
import difflib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from pkgutil import resolve_name
from typing import Any

from mmfusion.cli.commands import COMMANDS
from mmfusion.cli.early import check
from mmfusion.cli.parsing import known_options, parse
from mmfusion.data.memory import as_setting


def run(name: str, config: Any) -> Any:
    """Check the options of a command, and run it."""
    check(name, config)
    return resolve_name(f"mmfusion.{COMMANDS[name].verb}")(config)


def configured(name: str, config: Any = None, **options: Any) -> Any:
    """The dataclass of a command, as the command line would fill it.

    Args:
        name: Command.
        config: YAML file, or the dataclass (or a dict) of options; ``options`` take precedence.
        options: Option -> value; sections as dicts or their dataclass, of which all values count. None leaves an option
            to the file and the defaults.

    Raises:
        TypeError: Unknown option (the message names the nearest one), or a value of an unsupported type.
        ValueError: A value of the wrong type, or a missing required option.
    """
    known = known_options(name)
    is_file = isinstance(config, str | os.PathLike)
    given: dict[str, Any] = {} if is_file or config is None else dict(_leaves(name, known, config))
    given |= _leaves(name, known, {option: value for option, value in options.items() if value is not None})
    sources = [option for option, value in given.items() if option.split(".")[-1] == "data" and value is not None]
    given |= {option: as_setting(given[option]) for option in sources}
    words = [f"--{option}={_word(option, value)}" for option, value in given.items()]
    try:
        parsed = parse(name, [*([f"--config={os.fspath(config)}"] if is_file else []), *words])
    except argparse.ArgumentError as error:
        message = re.sub(r"; see mmfusion \w+ --help", "", " ".join(str(error).split()))
        message = re.sub(r"--(\w+)\.name (.+)\.$", r"\1={'name': '\2'}.", message)
        raise ValueError(f"mmfusion.{name}: {message.removeprefix('--')}") from None
    for option in sources:
        *path, last = option.split(".")
        section = parsed
        for part in path:
            section = getattr(section, part)
        setattr(section, last, given[option])
    return parsed


def _leaves(name: str, known: Mapping[str, Any], values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted options and their values, from nested dicts and dataclasses."""
    items = {f.name: getattr(values, f.name) for f in fields(values)} if is_dataclass(values) else values
    for key, value in items.items():
        option = f"{prefix}{key}"
        within = any(other.startswith(f"{option}.") for other in known)
        if within and (is_dataclass(value) or isinstance(value, Mapping)):
            yield from _leaves(name, known, value, f"{option}.")
        elif within and isinstance(value, str | os.PathLike):
            yield option, value  # a file with the section
        elif option in known or any(option.startswith(f"{other}.") and "dict" in str(known[other]) for other in known):
            yield option, value
        elif within:
            raise TypeError(f"mmfusion.{name}: {option} is a dict or its dataclass, not {type(value).__name__}.")
        else:
            raise TypeError(f"mmfusion.{name} has no option {option!r}{_near(option, known)}")


def _near(option: str, known: Mapping[str, Any]) -> str:
    """The nearest option, as it is written in Python; a setting may have been given without its section."""
    by_name = {other.rpartition(".")[2]: other for other in known} | {other: other for other in known}
    found = difflib.get_close_matches(option, by_name, n=1) or difflib.get_close_matches(
        option.rpartition(".")[2], by_name, n=1
    )
    if not found:
        return f"; it has {', '.join(dict.fromkeys(other.partition('.')[0] for other in known))}."
    section, _, last = by_name[found[0]].rpartition(".")
    return f"; did you mean {section}={{{last!r}: ...}}?" if section else f"; did you mean {last!r}?"


def _word(option: str, value: Any) -> str:
    """A value as the command line takes it."""
    if isinstance(value, str | os.PathLike):
        return str(os.fspath(value))
    try:
        return json.dumps(value, default=_plain)
    except TypeError as error:
        raise TypeError(f"{option}: {error}; options are texts, numbers, lists and dicts.") from None


def _plain(value: Any) -> Any:
    """A path or a number of NumPy as JSON has it."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        return value.item()
    raise TypeError(f"{type(value).__name__} is not a supported value")
