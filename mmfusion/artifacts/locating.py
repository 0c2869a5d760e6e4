"""Folders of saved models: name resolution and portable names."""

import os
from pathlib import Path
from typing import Any

from mmfusion.artifacts.ensemble import FORMAT_VERSION
from mmfusion.artifacts.names import CONFIG, ENSEMBLE, LOCAL
from mmfusion.names import clip
from mmfusion.untrusted import is_outside, read_foreign_json


def saved_in(name: str | os.PathLike[str]) -> Path:
    """The saved model in a folder; for a run folder, its ``best``.

    Args:
        name: The folder, with or without ``local-dir:``.

    Raises:
        FileNotFoundError: The folder does not exist or has no saved model.
    """
    folder = folder_of(name)
    if (found := model_in(folder)) is not None:
        return found
    if not folder.is_dir():
        raise FileNotFoundError(f"{os.fspath(name)!r}: the folder {folder} does not exist.")
    raise FileNotFoundError(f"{os.fspath(name)!r}: {folder} has no saved model (no {CONFIG}, no best/{CONFIG}).")


def own_folder(name: str | os.PathLike[str]) -> Path:
    """Folder of a saved model outside the package and the Hub's cache, for writing; otherwise ValueError."""
    if (folder := model_in(folder_of(name))) is None:
        raise ValueError(f"store needs a folder of your own, which {os.fspath(name)} is not; copy the model.")
    return folder


def folder_of(name: str | os.PathLike[str]) -> Path:
    """A name as a path, without ``local-dir:``."""
    return Path(os.fspath(name).removeprefix(LOCAL)).expanduser()


def model_in(folder: Path) -> Path | None:
    """The folder, or its ``best``, if it has a saved model or an ensemble; else None."""
    files = (CONFIG, ENSEMBLE)
    return next((each for each in (folder, folder / "best") if any((each / name).is_file() for name in files)), None)


def members_in(folder: Path) -> list[Path]:
    """The saved models listed in the folder of an ensemble; empty for a single model.

    Raises:
        ValueError: An entry is not a folder inside it, or the version is newer.
    """
    if (folder / CONFIG).is_file() or not (folder / ENSEMBLE).is_file():
        return []
    told = read_foreign_json(folder / ENSEMBLE)
    if (version := told.get("format_version", FORMAT_VERSION)) != FORMAT_VERSION:
        path = folder / ENSEMBLE
        raise ValueError(
            f"{path} has format_version {clip(repr(version))}, this mmfusion supports {FORMAT_VERSION}; update it."
        )
    listed: Any = told.get("members")
    known = isinstance(listed, list) and len(listed) > 1 and all(isinstance(name, str) for name in listed)
    if not known or any(is_outside(name) for name in listed):
        raise ValueError(f"{folder / ENSEMBLE} must list at least two subfolders, got {clip(str(listed))}.")
    return [saved_in(folder / name) for name in listed]


def portable_name(name: str) -> str:
    """A model's name for shared files: only the last part of a local path."""
    is_local = name.startswith(LOCAL) or model_in(folder_of(name)) is not None
    return f"{LOCAL}{folder_of(name).resolve().name}" if is_local else name
