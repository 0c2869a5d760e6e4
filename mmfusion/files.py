"""Files and folders that are written whole or not at all, and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, write: Any) -> None:
    """Write beside and rename, so that a file is there whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    partial.touch()
    mode = partial.stat().st_mode
    write(partial)
    partial.chmod(mode)  # safetensors lets nobody but the owner read its files, on a shared machine too
    os.replace(partial, path)


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write plain values as JSON, atomically."""
    write_atomically(
        path, lambda target: target.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    )


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which takes the place of ``folder`` once the block has ended well.

    A kill leaves the old folder or the new one, never a mixture; :func:`recover` puts back the old one where the kill
    fell between the two renames.
    """
    partial, previous = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.previous")
    recover(folder)
    partial.mkdir(parents=True)
    yield partial
    if folder.exists():
        folder.rename(previous)
    partial.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)


def recover(folder: Path) -> None:
    """Clear away what a killed :func:`replacing` left."""
    partial, previous = folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.previous")
    if previous.exists() and not folder.exists():
        previous.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)
