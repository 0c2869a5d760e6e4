"""Files and folders that are written whole or not at all, and their hashes."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(values: Any) -> str:
    """A name of 16 characters for plain values, the same whenever they are."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def cache_folder(name: str) -> Path:
    """A folder of the user's cache: below ``MMFUSION_CACHE``, else ``mmfusion`` in the cache of the user's account."""
    own = os.environ.get("MMFUSION_CACHE")
    home = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmfusion"
    return home / name


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside ``path`` and of the same suffix, that takes its place once the block has ended.

    An error in the block leaves what was there before.
    """
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    partial.touch()
    mode = partial.stat().st_mode
    try:
        yield partial
        partial.chmod(mode)  # safetensors makes files that only their owner can read
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values; a table in memory, which stands where the path of a data set does, as its text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """It knows the subclasses of str."""

    Dumper.add_multi_representer(str, lambda dumper, text: dumper.represent_str(str(text)))
    path.write_text(yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, atomically."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 2) -> None:
    """Write plain values as JSON, atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; FileNotFoundError or ValueError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deep to be read.") from None
    except ValueError as error:  # of the text, of the JSON, or of a number of thousands of digits
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value


def update_json(path: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Write entries over those of the JSON object in a file, atomically; its other entries stay. Returns them all."""
    values = {**(read_json(path) if path.exists() else {}), **entries}
    write_json(path, values)
    return values


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which takes the place of ``folder`` once the block has ended well.

    An error in the block leaves the old folder. A kill leaves the old folder or the new one, never a mixture;
    :func:`recover` puts back the old one where the kill fell between the two renames.
    """
    partial, previous = _beside(folder)
    recover(folder)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(previous)
        partial.rename(folder)
    finally:
        recover(folder)


def recover(folder: Path) -> None:
    """Clear away what a killed :func:`replacing` left."""
    partial, previous = _beside(folder)
    if previous.exists() and not folder.exists():
        previous.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """The unfinished new folder, and the old one while the two change places."""
    return folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.previous")
