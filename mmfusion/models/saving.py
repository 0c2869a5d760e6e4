"""Saving of models to folders: JSON, text and safetensors, no pickle."""

import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn

from mmfusion import registry
from mmfusion.artifacts.folder import write_artifact
from mmfusion.artifacts.integrity import begin, digest
from mmfusion.artifacts.names import CONFIG, FAMILIARITY, LOCAL, WEIGHTS
from mmfusion.artifacts.versions import FORMAT_VERSION
from mmfusion.files import read_json, written_whole
from mmfusion.models.fitting import check_fit
from mmfusion.untrusted import is_outside

logger = logging.getLogger(__name__)

#: Entry of ``config.json`` that belongs to the weights -> its name in messages.
FITTED = {
    "calibration": "calibration",
    "tta": "test-time augmentation",
    "decisions": "operating points",
    "familiarity": "familiarity",
    "processor": "processor",
}


def save_pretrained(model: Any, folder: str | os.PathLike[str], processor: Any | None = None, **options: Any) -> Path:
    """Save a model with the processor that prepares its inputs, so that ``Predictor.from_pretrained`` can load both.

    Args:
        model: A ``FusionModel``, trained by any loop.
        folder: Folder to write to; created if it does not exist.
        processor: :class:`mmfusion.data.Processor` with the model's class names; None writes the model alone, as
            :func:`save_model` does.
        options: ``metadata``, ``metrics`` and ``dtype`` of :func:`save_model`.

    Returns:
        The folder.

    Raises:
        ValueError: Model and processor do not match.
        TypeError: ``model`` is not a module.
    """
    if not isinstance(model, nn.Module):
        how = "a Predictor saves itself, with predictor.save_pretrained(folder)"
        raise TypeError(f"save_pretrained takes a model, not {type(model).__name__}; {how}.")
    is_whole = "metadata" in options
    if processor is not None:
        check_fit(model, processor)
        options["metadata"] = {**(options.get("metadata") or {}), "processor": processor.to_dict()}
        begin(Path(folder))
        processor.save_tokenizer(Path(folder))
    path = save_model(model, folder, **options)
    if not is_whole:
        _tell_left_out(model, path)
    return path


def _tell_left_out(model: Any, folder: Path) -> None:
    """Warn of what the saved model that a model came from had, and this folder has not."""
    there = read_json(folder / CONFIG)
    if left := [FITTED[name] for name in getattr(model, "fitted", ()) if not there.get(name)]:
        words = " and ".join(filter(None, [", ".join(left[:-1]), left[-1]]))
        how = "if its weights are unchanged, predictor.save_pretrained(folder) keeps everything"
        how += "; save_pretrained(model, folder, processor) adds the processor" if "processor" in left else ""
        logger.warning("%s is saved without the trained model's %s: %s", folder, words, how)


def save_model(
    model: Any,
    folder: str | os.PathLike[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write ``config.json``, ``model.safetensors``, ``metrics.json``, the model card and ``files.json`` into a folder.

    Other entries of an existing ``config.json``, such as the processor, are kept, and so is a ``README.md`` that
    mmfusion did not write. :func:`save_pretrained` saves a model with its processor.

    Args:
        model: Model to save.
        folder: Folder to write to; created if it does not exist.
        metadata: Further top-level entries of ``config.json``, e.g. provenance.
        metrics: Metrics to save with the model.
        dtype: Type of the floating-point weights in the file, e.g. ``torch.float16`` for half the size; None keeps
            their type. Buffers (means and scales) always keep theirs. Loaded models compute in full precision.

    Returns:
        The folder.
    """
    folder = Path(folder)
    begin(folder)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if dtype is not None:
        # only weights: a mean of 250,000 cells per microliter is infinite in half precision
        weights = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
        state = {name: tensor.to(dtype) if name in weights else tensor for name, tensor in state.items()}
    with written_whole(folder / WEIGHTS) as partial:
        save_file(state, partial, metadata={"format": "pt"})
    path = folder / CONFIG
    # entries that were fitted with the previous weights
    dropped = FITTED.keys() - {"processor"}
    there = {name: value for name, value in (read_json(path) if path.exists() else {}).items() if name not in dropped}
    entries = {**there, "calibration": None, "tta": False, **(metadata or {})}
    if "familiarity" not in entries:
        (folder / FAMILIARITY).unlink(missing_ok=True)
    write_artifact(folder, model_config(model, entries) | {"weights_sha256": digest(folder / WEIGHTS)}, metrics)
    return folder


def model_config(model: Any, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Content of a model's ``config.json``, without the hash of its weights.

    Args:
        model: The model.
        entries: Further top-level entries. If ``processor`` is among them, ``label_names``, input size and
            normalization are the processor's, which may differ from the backbone's.
    """
    cfg, processor = model.pretrained_cfg, entries.get("processor") or {}
    if size := processor.get("image_size"):
        cfg |= {"input_size": [3, size, size], "mean": processor["mean"], "std": processor["std"]}
    plugins = _plugins(model.config)
    kept = {name: value for name, value in entries.items() if name not in ("plugins", "encoders")}
    kept |= {"plugins": plugins} if plugins else {}
    kept |= {"encoders": model.origins} if model.origins else {}
    kept |= {"label_names": processor["labels"]} if processor.get("labels") else {}
    kept |= {"format_version": FORMAT_VERSION, "architecture": model.architecture, "model": _portable(model.config)}
    return kept | {name: cfg.get(name) for name in ("input_size", "mean", "std")}


def named_parts(model: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Entry of ``plugins``, kind and name of every part in a model's keywords."""
    yield from ((kind, kind, name) for kind, name in model.items() if kind in registry.KINDS and name is not None)
    if model.get("table_encoder") is not None:
        yield "table_tower", "table_tower", model["table_encoder"]
    yield from ((f"tower.{name}", "tower", name) for name in model.get("towers") or {})


def _plugins(model: dict[str, Any]) -> dict[str, str]:
    """Part -> module that registered it, for parts that are not built in."""
    origins = {entry: registry.origin(kind, name) for entry, kind, name in named_parts(model)}
    return {entry: module for entry, module in origins.items() if module}


def _portable(model: dict[str, Any]) -> dict[str, Any]:
    """The keywords without paths on this machine; the encoders' configurations are inlined, so none is needed."""
    names = {name: model[name] for name in ("image_encoder", "text_encoder") if isinstance(model[name], str)}
    paths = {name: value.removeprefix(LOCAL) for name, value in names.items()}
    outside = {name: Path(path).name for name, path in paths.items() if path != names[name] or is_outside(path)}
    return {**model, **outside}
