"""What the configuration of somebody else's model may not hold: paths out of its folder, and calls for code."""

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any


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
