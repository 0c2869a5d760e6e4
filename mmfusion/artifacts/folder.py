"""A saved model as a folder: what its files are called, and its ``config.json``, checked before anything is built."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from mmfusion.artifacts.hub import fetch
from mmfusion.artifacts.shipped import shipped
from mmfusion.artifacts.versions import FORMAT_VERSION, renamed_model
from mmfusion.towers.text import asks_for_code

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"
PREFIXES = ("local-dir:", "hf-hub:")


def portable_name(name: str) -> str:
    """A model's name, of a local folder its last part alone: for files that leave this machine."""
    prefix = PREFIXES[0]
    return f"{prefix}{Path(name.removeprefix(prefix)).name}" if name.startswith(prefix) else name


def is_outside(value: Any) -> bool:
    """Whether a value is a path that leads out of a folder: absolute, from a home folder, or by ``..``."""
    if not isinstance(value, str):
        return False
    kinds = (PurePosixPath(value), PureWindowsPath(value))
    return value.startswith("~") or any(path.is_absolute() or path.drive or ".." in path.parts for path in kinds)


def _names(values: Any) -> Iterator[str]:
    """All keys, of dicts within too."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield key
            yield from _names(value)


def _outside(values: Any, name: str) -> Iterator[tuple[str, str]]:
    """Entries whose value leads out of the folder, with their names."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _outside(value, f"{name}.{key}")
    elif isinstance(values, list):
        for value in values:
            yield from _outside(value, name)
    elif is_outside(values):
        yield name, values


def read_config(folder: Path) -> dict[str, Any]:
    """The ``config.json`` of a saved model; one of an earlier format version under today's names.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is not readable, of an unknown format version, lacks the model, or looks outside the folder.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is not a saved model: it has no {CONFIG}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable JSON ({error}); fetch or save the model again.") from None
    version = config.get("format_version") if isinstance(config, dict) else None
    if type(version) is not int or not 1 <= version <= FORMAT_VERSION:
        known = "1" if FORMAT_VERSION == 1 else f"1 to {FORMAT_VERSION}"
        raise ValueError(f"{path} has format_version {version!r}, this mmfusion reads {known}; update mmfusion.")
    if not isinstance(config.get("model"), dict):
        raise ValueError(f"{path} has no 'model' entry; save the model again.")
    model = config["model"] = renamed_model(config["model"], version)
    calibration = config.get("calibration")
    if calibration is not None and not _is_calibration(calibration):
        raise ValueError(
            f"{path}: calibration {calibration!r} is not a temperature above 0 with fitted_on and n; remove the entry."
        )
    # a saved model brings its weights and tower configurations; nothing in it may look for them elsewhere
    if model.get("encoder_weights") is not None:
        raise ValueError(f"{path} asks for encoder_weights; a saved model brings its own. Save it again.")
    if model.get("text_encoder") is not None and not (model.get("text_args") or {}).get("config"):
        raise ValueError(
            f"{path} lacks the configuration of its text encoder (text_args.config); save the model again."
        )
    for name in _names(model.get("text_args")):
        if asks_for_code(name):
            raise ValueError(f"{path}: text_args.config has {name!r}, which could fetch code; remove the entry.")
    export = config.get("export")
    if export is not None and not (isinstance(export, dict) and {"format", "file", "sha256"} <= export.keys()):
        raise ValueError(f"{path}: its entry 'export' lacks format, file or sha256; export the model again.")
    for part in ("model", "export"):
        for name, value in _outside(config.get(part), part):
            raise ValueError(
                f"{path}: {name} is {value!r}, a path out of its folder, which nothing is read from; save the model "
                "again, or name a file in the folder."
            )
    return config


def _is_calibration(value: Any) -> bool:
    if not isinstance(value, dict) or not {"temperature", "fitted_on", "n"} <= value.keys():
        return False
    return isinstance(value["temperature"], int | float) and 0 < value["temperature"] < float("inf")


def resolve_artifact(name: str) -> Path:
    """The folder of a saved model.

    Args:
        name: ``local-dir:FOLDER`` (a run folder stands for its ``best``), ``hf-hub:org/name`` with an optional
            ``@revision``, or an ``arch.tag`` shipped with the package.

    Raises:
        FileNotFoundError: no such folder, repository or revision, or no saved model in it.
        ValueError: no such weights.
    """
    if name.startswith("hf-hub:"):
        return fetch(name)
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser()
        if not folder.is_dir():
            raise FileNotFoundError(f"{name!r}: there is no folder {folder}.")
        for candidate in (folder, folder / "best"):
            if (candidate / CONFIG).is_file():
                return candidate
        raise FileNotFoundError(f"{name!r}: {folder} holds no saved model (no {CONFIG}, no best/{CONFIG}).")
    if Path(name).expanduser().is_dir() or "/" in name:
        raise ValueError(
            f"{name!r} looks like a path; write 'local-dir:{name}' for a folder or 'hf-hub:{name}' for the Hub."
        )
    tags = shipped()
    found = [tag for tag in tags if tag == name or tag.partition(".")[0] == name]
    if not found:
        have = f"there are {', '.join(tags)}" if tags else "this version ships none"
        raise ValueError(f"No pretrained weights for {name!r}; {have}.")
    return found[0].folder
