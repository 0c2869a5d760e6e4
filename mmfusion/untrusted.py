"""Checks of untrusted model configurations: paths out of the folder, remote code, excessive memory."""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mmfusion.files import read_json

#: Maximum size in bytes of a saved model's JSON file, and maximum nesting depth.
MOST_JSON = 32 << 20
DEEPEST = 40


def read_foreign_json(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """Read the JSON object in an untrusted file.

    Args:
        path: The file.
        most: Maximum size in bytes.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is not a JSON object, too large, or nested too deeply.
    """
    if path.is_file() and (size := path.stat().st_size) > most:
        raise ValueError(f"{path} has {size:,} bytes; at most {most:,} are allowed.")
    value = read_json(path)
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [each for one in level if isinstance(one, dict | list) for each in _within(one)]
        if not level:
            return value
    raise ValueError(f"{path} is nested more than {DEEPEST} levels deep.")


def _within(value: dict[str, Any] | list[Any]) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def numbers_of(values: Any, name: str) -> Iterator[tuple[str, float]]:
    """Dotted name and value of each number in nested dicts and lists; list items have the name of the list."""
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else ((None, value) for value in values)
        for key, value in items:
            yield from numbers_of(value, name if key is None else f"{name}.{key}")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield name, values


def asks_for_code(name: str) -> bool:
    """Whether an entry of a transformers configuration could make it download or run remote code."""
    return name in ("auto_map", "custom_pipelines", "quantization_config", "trust_remote_code", "use_kernels") or (
        name.endswith(("attn_implementation", "experts_implementation", "attn_implementation_internal"))
    )


def is_outside(value: Any) -> bool:
    """Whether a value is a path that leads out of a folder: absolute, from a home folder, or by ``..``."""
    if not isinstance(value, str):
        return False
    kinds = (PurePosixPath(value), PureWindowsPath(value))
    return value.startswith("~") or any(path.is_absolute() or path.drive or ".." in path.parts for path in kinds)


def keys_of(values: Any) -> Iterator[str]:
    """All keys of nested dicts."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield key
            yield from keys_of(value)


def paths_outside(values: Any, name: str) -> Iterator[tuple[str, str]]:
    """Dotted name and value of each entry that is a path out of the folder.

    Args:
        values: Plain values, nested in dicts and lists.
        name: Name of the values.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from paths_outside(value, f"{name}.{key}")
    elif isinstance(values, list):
        for value in values:
            yield from paths_outside(value, name)
    elif is_outside(values):
        yield name, values
