"""The folder of a saved model: its files, its checked ``config.json``, and the resolution of model names.

No heavy library is imported: a command reads the settings of a saved model before it loads torch.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmfusion import registry
from mmfusion.artifacts.card import MARK, model_card
from mmfusion.artifacts.checks import check_config
from mmfusion.artifacts.hub import fetch
from mmfusion.artifacts.integrity import begin, check_files, write_files
from mmfusion.artifacts.locating import folder_of, members_in, model_in, saved_in
from mmfusion.artifacts.names import CARD, CONFIG, HUB, LOCAL, METRICS
from mmfusion.artifacts.shipped import Weights, refuse_clash, shipped
from mmfusion.artifacts.versions import FORMAT_VERSION, renamed_model
from mmfusion.files import update_json, write_json, write_text
from mmfusion.names import clip
from mmfusion.untrusted import read_foreign_json

#: Prefixes of saved models that are not shipped.
PREFIXES = (LOCAL, HUB)


def is_saved(name: str) -> bool:
    """Whether a name refers to trained weights: with a prefix or a tag, or a folder that is not an architecture."""
    if any(mark in name for mark in ":./"):
        return True
    return model_in(folder_of(name)) is not None and not registry.is_known("model", name)


def full_name(name: str) -> str:
    """A model's name, with the tag added for shipped weights."""
    return str(_shipped_as(name) or name)


def _shipped_as(name: str) -> Weights | None:
    """The installed weights of an ``arch.tag``, or of an ``arch`` with its first tag, preferring mmfusion's own.

    Raises:
        ValueError: Two packages have weights of the same name.
    """
    found = [tag for tag in shipped() if name in (tag, tag.partition(".")[0])]
    refuse_clash(found)
    return min(found, key=lambda tag: tag.package != "mmfusion", default=None)


def refuse_path(name: str) -> None:
    """Raise ValueError, with the correct form, for a name that looks like a path."""
    if "/" in name or "\\" in name or Path(name).expanduser().is_dir():
        raise ValueError(
            f"{name!r} looks like a path; write '{LOCAL}{name}' for a folder or '{HUB}{name}' for the Hub."
        )


def resolve_artifact(name: str | os.PathLike[str]) -> Path:
    """The folder of a trained model, by its name.

    Args:
        name: A folder (for a run folder, its ``best``), also as ``local-dir:FOLDER``; ``hf-hub:org/name`` with an
            optional ``@revision``; or an ``arch.tag`` shipped with the package. A folder of that name takes precedence,
            with a warning.

    Raises:
        FileNotFoundError: The folder, repository or revision does not exist, or has no saved model.
        ValueError: The weights do not exist, or the folder is an ensemble of several models.
    """
    folder, *others = resolve_members(name)
    if others:
        raise ValueError(f"{os.fspath(name)!r} is an ensemble; use one of its members, such as {folder}.")
    return folder


def resolve_members(name: str | os.PathLike[str]) -> list[Path]:
    """The folders of the trained models behind a name: one, or the members of an ensemble.

    Otherwise as :func:`resolve_artifact`.
    """
    folder = _located(name)
    return members_in(folder) or [folder]


def member_names(name: str | os.PathLike[str]) -> Sequence[str | os.PathLike[str]]:
    """The model's name unchanged, or the folders of an ensemble's members."""
    found = resolve_members(name)
    return found if len(found) > 1 else [name]


def _located(name: str | os.PathLike[str]) -> Path:
    """The folder of a name."""
    if not isinstance(name, str) or name.startswith(LOCAL):
        return saved_in(name)
    if name.startswith(HUB):
        return fetch(name)
    weights = _shipped_as(name)
    if (folder := model_in(folder_of(name))) is not None:
        if weights is not None:
            other = "to load the package's weights of that name, use another working directory or rename this folder"
            warnings.warn(f"{name!r} refers to the folder {folder.resolve()}; {other}.", stacklevel=2)
        return folder
    if weights is not None:
        return weights.folder
    if folder_of(name).is_dir():
        return saved_in(name)  # raises with the missing file
    if "/" in name or "\\" in name:
        raise FileNotFoundError(f"{name!r}: there is no such folder; a model on the Hub is '{HUB}{name}'.")
    return shipped_weights(name).folder


def shipped_weights(name: str) -> Weights:
    """The weights of an installed package by ``arch.tag``, or by ``arch`` with its first tag.

    Raises:
        ValueError: They do not exist.
    """
    weights = _shipped_as(name)
    if weights is None:
        tags = shipped()
        have = f"available: {', '.join(tags)}" if tags else "this version ships none"
        architecture = name.partition(".")[0]
        try:
            registry.check_written("model", architecture)
        except ValueError:
            fix = "There is also no folder of that name."
        else:
            start = f'create_model({architecture!r}, encoder_weights="default")'
            fix = f"For a new model with published encoder weights, use {start}."
        raise ValueError(f"No pretrained weights for {name!r}; {have}. {fix}")
    return weights


def read_config(folder: Path) -> dict[str, Any]:
    """Read the ``config.json`` of a saved model, renaming entries of earlier format versions.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is unreadable, has an unknown format version, lacks the model, points outside the folder, has an
            invalid value or a contradiction, or was edited after saving.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a saved model: it has no {CONFIG}.")
    try:
        config = read_foreign_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON ({error}); download or save the model again.") from None
    version = config.get("format_version")
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        known = "1" if FORMAT_VERSION == 1 else f"1 to {FORMAT_VERSION}"
        raise ValueError(f"{path} has format_version {clip(repr(version))}, this mmfusion supports {known}; update it.")
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{path} has no 'model' entry; save the model again.")
    config["model"] = renamed_model(config["model"], version)
    check_config(path, config)
    check_files(folder, CONFIG)
    return config


def read_metrics(folder: Path) -> dict[str, Any] | None:
    """The ``metrics.json`` of a saved model, or None."""
    path = folder / METRICS
    return read_foreign_json(path) if path.is_file() else None


def update_config(folder: Path, entries: Mapping[str, Any]) -> None:
    """Update entries of ``config.json``; other entries are kept, and a missing folder is created."""
    begin(folder)
    update_json(folder / CONFIG, entries)
    write_files(folder)


def without_ids(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics without row ids, which only the run folder has."""
    named = metrics.get("worst_errors")
    errors = {"worst_errors": [{**error, "id": None} for error in named]} if named else {}
    return {**metrics, **errors}


def write_artifact(folder: Path, config: Mapping[str, Any], metrics: Mapping[str, Any] | None = None) -> None:
    """Write ``config.json``, ``metrics.json``, the model card and ``files.json``, after all other files.

    A ``README.md`` not written by mmfusion is kept, and so is ``metrics.json`` if no metrics are given.
    """
    write_json(folder / CONFIG, config)
    if metrics is not None:
        write_json(folder / METRICS, without_ids(metrics))
    card = folder / CARD
    if not card.exists() or MARK in card.read_text(encoding="utf-8"):
        write_text(card, model_card(config, metrics))
    write_files(folder, (config.get("export") or {}).get("file"))
