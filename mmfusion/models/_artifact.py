"""A saved model: one folder that holds all it takes to build it again, without a network and without pickle."""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mmfusion import registry
from mmfusion.models._card import MARK, model_card
from mmfusion.models._format import FORMAT_VERSION, renamed_model, renamed_tensors
from mmfusion.models._hub import fetch
from mmfusion.models._shipped import shipped
from mmfusion.models.fusion_model import FusionModel, model_keywords
from mmfusion.towers.text import asks_for_code

CONFIG, WEIGHTS, METRICS, CARD = "config.json", "model.safetensors", "metrics.json", "README.md"
PREFIXES = ("local-dir:", "hf-hub:")

#: files that torch and others unpickle.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def save_model(
    model: FusionModel,
    folder: str | os.PathLike[str],
    *,
    metadata: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write ``config.json``, ``model.safetensors``, ``metrics.json`` and the model card into a folder.

    What else lies in the folder's ``config.json`` (the processor's part) stays, and so does a ``README.md`` of
    another hand.

    Args:
        model: the model.
        folder: created if need be.
        metadata: further top-level entries of ``config.json``, e.g. provenance.
        metrics: figures to travel with the model.
        dtype: of floating-point weights in the file, e.g. ``torch.float16`` for half the size; None keeps theirs. A
            loaded model computes in full precision all the same.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / CONFIG
    config = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    cfg, processor = model.pretrained_cfg, config.get("processor") or {}
    if size := processor.get("image_size"):  # what the model saw, which need not be what its backbone was made for
        cfg |= {"input_size": [3, size, size], "mean": processor["mean"], "std": processor["std"]}
    config |= {
        "format_version": FORMAT_VERSION,
        "architecture": model.architecture,
        "model": _portable(model.config),
        "input_size": cfg.get("input_size"),
        "mean": cfg.get("mean"),
        "std": cfg.get("std"),
        "calibration": model.calibration,
        **(metadata or {}),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if dtype is not None:
        state = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    write_atomically(folder / WEIGHTS, lambda target: save_file(state, target, metadata={"format": "pt"}))
    config["weights_sha256"] = sha256(folder / WEIGHTS)
    write_json(path, config)
    if metrics is not None:
        write_json(folder / METRICS, metrics)
    card = folder / CARD
    if not card.exists() or MARK in card.read_text(encoding="utf-8"):
        text = model_card(config, metrics)
        write_atomically(card, lambda target: target.write_text(text, encoding="utf-8"))
    return folder


def _portable(model: dict[str, Any]) -> dict[str, Any]:
    """The keywords without this machine's folders: the text encoder's configuration is among them, not read there."""
    encoder = model["text_encoder"]
    return {**model, "text_encoder": Path(encoder).name} if _is_outside(encoder) else model


def portable_name(name: str) -> str:
    """A model's name, of a local folder its last part alone: for files that leave this machine."""
    prefix = PREFIXES[0]
    return f"{prefix}{Path(name.removeprefix(prefix)).name}" if name.startswith(prefix) else name


def _is_outside(value: Any) -> bool:
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
    elif _is_outside(values):
        yield name, values


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


def load_model(folder: str | os.PathLike[str], *, num_classes: int | None = None, **overrides: Any) -> FusionModel:
    """Build a saved model from its folder alone and load its weights, strictly.

    Args:
        folder: of :func:`save_model`.
        num_classes: another number of classes than the saved one gives a fresh head, and a warning that says so.
        overrides: model keywords that beat the stored ones.

    Raises:
        FileNotFoundError: a file of the model is missing.
        ValueError: a file is damaged, or tensors are missing, unexpected or of another shape; the message names them.
        TypeError: an override is no keyword of a model.
    """
    folder = Path(folder)
    stored = read_config(folder)
    if "export" in stored:
        raise ValueError(f"{folder} holds an exported model, which mmfusion.Predictor runs; its weights are fixed.")
    for name in overrides:
        if name not in model_keywords():
            raise TypeError(
                f"create_model got an unexpected keyword {name!r}; {registry.did_you_mean(name, model_keywords())}"
            )
    try:
        with _without_weights():
            model = FusionModel(**{**stored["model"], **_merged(stored["model"], overrides)})
    except (TypeError, ValueError) as error:
        raise type(error)(f"{folder / CONFIG}: {error}") from None
    model.architecture = stored.get("architecture")
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        why = f", and {pickled[0]} is pickle, which may run any code and is not read" if pickled else ""
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}{why}; save or fetch the model again.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}); fetch or save the model again.") from None
    state, own = renamed_tensors(state, stored["format_version"]), model.state_dict()
    wrong = [
        *(f"missing {name}" for name in own if name not in state),
        *(f"unexpected {name}" for name in state if name not in own),
        *(
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{path} does not fit its model: {'; '.join(wrong[:5])}{more}. {CONFIG} was changed, or belongs to other "
            "weights; fetch or save the model again."
        )
    # a flipped bit within a tensor is nothing that safetensors could notice
    if stored.get("weights_sha256") not in (None, sha256(path)):
        raise ValueError(f"{path} is damaged (not the file that {CONFIG} was written with); fetch or save it again.")
    # weights may be saved in half the precision that the model computes in
    model.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in state.items()}, assign=True)
    model.calibration = stored.get("calibration")
    if num_classes is not None and num_classes != model.num_classes:
        warnings.warn(
            f"{folder} was saved with {model.num_classes} classes and num_classes={num_classes} was asked for: the "
            "head is new, with random weights, and has to be trained.",
            stacklevel=3,
        )
        model.reset_classifier(num_classes)
    return model.eval()


#: one thread at a time changes how modules register their parameters.
_BUILDING = threading.Lock()


@contextmanager
def _without_weights() -> Iterator[None]:
    """Build modules whose parameters hold no memory and are not initialised: the saved ones take their places.

    Buffers are real, as some are not saved. Modules that another thread builds meanwhile are as always.
    """
    with _BUILDING:
        register, builder = nn.Module.register_parameter, threading.get_ident()

        def register_empty(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
            if param is not None and threading.get_ident() == builder:
                param = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
            register(module, name, param)

        nn.Module.register_parameter = register_empty  # type: ignore[assignment]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]


def _merged(stored: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Any]:
    """The overrides, keywords of a part laid over its stored ones."""
    return {
        name: {**(stored.get(name) or {}), **(value or {})} if name.endswith("_args") else value
        for name, value in overrides.items()
    }


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
