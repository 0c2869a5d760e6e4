"""What the configuration of somebody else's model may not hold: paths out of its folder, calls for code, and more
than there is memory for.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mmfusion.files import read_json

#: bytes of a JSON file of a saved model, at most; and how deep its objects and lists may lie in each other.
MOST_JSON = 32 << 20
DEEPEST = 40


def read_foreign_json(path: Path, most: int = MOST_JSON) -> dict[str, Any]:
    """The JSON object in a file of somebody else's.

    Args:
        path: The file.
        most: Bytes that are read, at most.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is no JSON object, or too large, or too deep.
    """
    if path.is_file() and (size := path.stat().st_size) > most:
        raise ValueError(f"{path} has {size:,} bytes, and at most {most:,} are read.")
    value = read_json(path)
    level: list[Any] = [value]
    for _ in range(DEEPEST):
        level = [each for one in level if isinstance(one, dict | list) for each in _within(one)]
        if not level:
            return value
    raise ValueError(f"{path} is nested more than {DEEPEST} deep.")


def _within(value: dict[str, Any] | list[Any]) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value)


def numbers_of(values: Any, name: str) -> Iterator[tuple[str, float]]:
    """Dotted name and value of each number, of those in dicts and lists; an item of a list has the list's name."""
    if isinstance(values, dict | list):
        items = values.items() if isinstance(values, dict) else ((None, value) for value in values)
        for key, value in items:
            yield from numbers_of(value, name if key is None else f"{name}.{key}")
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield name, values


def asks_for_code(name: str) -> bool:
    """Whether an entry of a transformers configuration may make it fetch or run code from elsewhere."""
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
    """All keys of a dict, and of the dicts in it."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield key
            yield from keys_of(value)


def paths_outside(values: Any, name: str) -> Iterator[tuple[str, str]]:
    """Dotted name and value of each entry that is a path out of the folder.

    Args:
        values: Plain values, nested in dicts and lists.
        name: What the values are called.
    """
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from paths_outside(value, f"{name}.{key}")
    elif isinstance(values, list):
        for value in values:
            yield from paths_outside(value, name)
    elif is_outside(values):
        yield name, values
