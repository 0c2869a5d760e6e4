"""Folders of saved models: resolution of names, and portable names."""

import os
from pathlib import Path
from typing import Any

from mmfusion.artifacts.ensemble import FORMAT_VERSION
from mmfusion.artifacts.names import CONFIG, ENSEMBLE, LOCAL
from mmfusion.names import clip
from mmfusion.untrusted import is_outside, read_foreign_json


def saved_in(name: str | os.PathLike[str]) -> Path:
    """The saved model in a folder; a run folder stands for its ``best``.

    Args:
        name: The folder, with or without ``local-dir:``.

    Raises:
        FileNotFoundError: No such folder, or no saved model in it.
    """
    folder = folder_of(name)
    if (found := model_in(folder)) is not None:
        return found
    if not folder.is_dir():
        raise FileNotFoundError(f"{os.fspath(name)!r}: there is no folder {folder}.")
    raise FileNotFoundError(f"{os.fspath(name)!r}: {folder} holds no saved model (no {CONFIG}, no best/{CONFIG}).")


def own_folder(name: str | os.PathLike[str]) -> Path:
    """The folder of a saved model that one may write to: neither of the package nor of the Hub's cache; ValueError."""
    if (folder := model_in(folder_of(name))) is None:
        raise ValueError(f"store writes into a folder of your own, which {os.fspath(name)} is not; copy the model.")
    return folder


def folder_of(name: str | os.PathLike[str]) -> Path:
    """A name as a path, without ``local-dir:``."""
    return Path(os.fspath(name).removeprefix(LOCAL)).expanduser()


def model_in(folder: Path) -> Path | None:
    """The folder itself, or its ``best``, whichever holds a saved model or an ensemble; None where neither does."""
    files = (CONFIG, ENSEMBLE)
    return next((each for each in (folder, folder / "best") if any((each / name).is_file() for name in files)), None)


def members_in(folder: Path) -> list[Path]:
    """The saved models that the folder of an ensemble lists; none where it is that of one model.

    Raises:
        ValueError: It lists something else than folders below it, or is of a later version.
    """
    if (folder / CONFIG).is_file() or not (folder / ENSEMBLE).is_file():
        return []
    told = read_foreign_json(folder / ENSEMBLE)
    if (version := told.get("format_version", FORMAT_VERSION)) != FORMAT_VERSION:
        path = folder / ENSEMBLE
        raise ValueError(
            f"{path} has format_version {clip(repr(version))}, this mmfusion reads {FORMAT_VERSION}; update mmfusion."
        )
    listed: Any = told.get("members")
    known = isinstance(listed, list) and len(listed) > 1 and all(isinstance(name, str) for name in listed)
    if not known or any(is_outside(name) for name in listed):
        raise ValueError(f"{folder / ENSEMBLE} lists no two members, as folders below it: {clip(str(listed))}.")
    return [saved_in(folder / name) for name in listed]


def portable_name(name: str) -> str:
    """A model's name for files that are shared: only the last part of a local path."""
    is_local = name.startswith(LOCAL) or model_in(folder_of(name)) is not None
    return f"{LOCAL}{folder_of(name).resolve().name}" if is_local else name
