"""Models written to folders and built from them again, without a network and without pickle."""

from __future__ import annotations

import json
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from mmfusion.artifacts.card import MARK, model_card
from mmfusion.artifacts.folder import CARD, CONFIG, METRICS, WEIGHTS, is_outside, read_config
from mmfusion.artifacts.versions import FORMAT_VERSION, renamed_tensors
from mmfusion.files import sha256, write_atomically, write_json
from mmfusion.models.fusion_model import FusionModel, model_keywords
from mmfusion.names import did_you_mean

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
    return {**model, "text_encoder": Path(encoder).name} if is_outside(encoder) else model


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
            raise TypeError(f"create_model got an unexpected keyword {name!r}; {did_you_mean(name, model_keywords())}")
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
    # copied, into the model's own precision: what is loaded are views of the file, which another process may replace,
    # at addresses for which matrix kernels round otherwise than for torch's own (multiples of 64)
    owned = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in state.items()}
    model.load_state_dict(owned, assign=True)
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
