"""Models written to folders and built from them again, without a network and without pickle."""

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.artifacts.folder import read_config, write_artifact
from mmfusion.artifacts.names import CONFIG, WEIGHTS
from mmfusion.artifacts.versions import FORMAT_VERSION, renamed_tensors
from mmfusion.files import read_json, sha256, written_whole
from mmfusion.models.fusion_model import FusionModel, model_keywords
from mmfusion.names import did_you_mean
from mmfusion.untrusted import is_outside

#: files that torch and others unpickle.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def save_model(
    model: FusionModel,
    folder: str | os.PathLike[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    metrics: Mapping[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> Path:
    """Write ``config.json``, ``model.safetensors``, ``metrics.json`` and the model card into a folder.

    Other entries of a ``config.json`` that is there stay, the processor's for one, and so does a ``README.md`` that
    somebody else wrote. :meth:`mmfusion.Predictor.save_pretrained` saves a model with its processor.

    Args:
        model: Model to save.
        folder: Folder to write to; it is made where there is none.
        metadata: Further top-level entries of ``config.json``, e.g. provenance.
        metrics: Metrics to travel with the model.
        dtype: Type of the floating-point weights in the file, e.g. ``torch.float16`` for half the size; None keeps
            theirs. Buffers (means and scales) keep theirs. A loaded model computes in full precision all the same.

    Returns:
        The folder.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if dtype is not None:
        # weights alone: a mean of 250,000 cells per microlitre is infinite in half precision
        weights = {name for name, weight in model.named_parameters() if weight.is_floating_point()}
        state = {name: tensor.to(dtype) if name in weights else tensor for name, tensor in state.items()}
    with written_whole(folder / WEIGHTS) as partial:
        save_file(state, partial, metadata={"format": "pt"})
    path = folder / CONFIG
    # a temperature belongs to the weights that it was fitted with
    entries = {**(read_json(path) if path.exists() else {}), "calibration": None, **(metadata or {})}
    write_artifact(folder, model_config(model, entries) | {"weights_sha256": sha256(folder / WEIGHTS)}, metrics)
    return folder


def model_config(model: FusionModel, entries: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a model's ``config.json``, but for the hash of its weights.

    Args:
        model: The model.
        entries: Further top-level entries. With one ``processor``, input size and normalization are the processor's:
            what the model saw need not be what its backbone was made for.
    """
    cfg, processor = model.pretrained_cfg, entries.get("processor") or {}
    if size := processor.get("image_size"):
        cfg |= {"input_size": [3, size, size], "mean": processor["mean"], "std": processor["std"]}
    plugins = _plugins(model.config)
    kept = {name: value for name, value in entries.items() if name != "plugins"}
    kept |= {"plugins": plugins} if plugins else {}
    kept |= {"format_version": FORMAT_VERSION, "architecture": model.architecture, "model": _portable(model.config)}
    return kept | {name: cfg.get(name) for name in ("input_size", "mean", "std")}


def _parts(model: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Entry of ``plugins``, kind and name of every part that a model's keywords name."""
    yield from ((kind, kind, name) for kind, name in model.items() if kind in registry.KINDS and name is not None)
    if model.get("table_encoder") is not None:
        yield "table_tower", "table_tower", model["table_encoder"]
    yield from ((f"tower.{name}", "tower", name) for name in model.get("towers") or {})


def _plugins(model: dict[str, Any]) -> dict[str, str]:
    """Part -> the module that brought it, of parts that are not built in."""
    origins = {entry: registry.origin(kind, name) for entry, kind, name in _parts(model)}
    return {entry: module for entry, module in origins.items() if module}


def _check_plugins(model: dict[str, Any], plugins: dict[str, str]) -> None:
    """Refuse a model whose parts are not registered. No module is imported because a folder names it."""
    for entry, kind, name in _parts(model):
        if entry in plugins and not registry.is_known(kind, name):
            raise ValueError(registry.missing_hint(kind, name, plugins[entry]))


def _portable(model: dict[str, Any]) -> dict[str, Any]:
    """The keywords without this machine's folders: the text encoder's configuration is among them, not read there."""
    encoder = model["text_encoder"]
    return {**model, "text_encoder": Path(encoder).name} if is_outside(encoder) else model


def load_model(folder: str | os.PathLike[str], *, num_classes: int | None = None, **overrides: Any) -> FusionModel:
    """Build a saved model from its folder alone and load its weights, strictly.

    Args:
        folder: Folder that :func:`save_model` wrote.
        num_classes: Number of classes; another one than the saved gives a new head, and a warning that says so.
        overrides: Model keywords that beat the stored ones.

    Raises:
        FileNotFoundError: A file of the model is missing.
        ValueError: A file is damaged, tensors are missing, unexpected or of another shape, or a part comes with a
            plugin that is not loaded; the message names them.
        TypeError: An override is no keyword of a model.
    """
    folder = Path(folder)
    stored = read_config(folder)
    if "export" in stored:
        raise ValueError(f"{folder} holds an exported model, which mmfusion.Predictor runs; its weights are fixed.")
    for name in overrides:
        if name not in model_keywords():
            raise TypeError(f"create_model got an unexpected keyword {name!r}; {did_you_mean(name, model_keywords())}")
    try:
        saved = stored["model"]
        nested = {n: {**(saved.get(n) or {}), **(overrides[n] or {})} for n in overrides if n.endswith("_args")}
        config = {**saved, **overrides, **nested}
        _check_plugins(config, {k: v for k, v in (stored.get("plugins") or {}).items() if k not in overrides})
        with _without_weights():
            model = FusionModel(**config)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{folder / CONFIG}: {error}") from None
    model.architecture = stored.get("architecture")
    own = model.state_dict()
    state = _checked_weights(folder, stored, {name: tensor.shape for name, tensor in own.items()})
    # copied, into the model's own precision: what is loaded are views of the file, which another process may replace,
    # at addresses where matrix kernels round differently than at torch's own, the multiples of 64
    owned = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in state.items()}
    model.load_state_dict(owned, assign=True)
    if num_classes is not None and num_classes != model.num_classes:
        warnings.warn(
            f"{folder} was saved with {model.num_classes} classes and num_classes={num_classes} was asked for: the "
            "head is new, with random weights, and has to be trained.",
            stacklevel=3,
        )
        model.reset_classifier(num_classes)
    return model.eval()


def _checked_weights(folder: Path, stored: Mapping[str, Any], shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """The saved tensors under today's names, as views of the file: all that the model has, of its shapes, undamaged."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        why = f", and {pickled[0]} is pickle, which may run any code and is not read" if pickled else ""
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}{why}; save or fetch the model again.")
    try:
        state = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}); fetch or save the model again.") from None
    state = renamed_tensors(state, stored["format_version"])
    wrong = [f"missing {name}" for name in shapes if name not in state]
    wrong += [f"unexpected {name}" for name in state if name not in shapes]
    for name, tensor in state.items():
        if name in shapes and tensor.shape != shapes[name]:
            wrong.append(f"{name} {tuple(tensor.shape)} instead of {tuple(shapes[name])}")
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise ValueError(
            f"{path} does not fit its model: {'; '.join(wrong[:5])}{more}. {CONFIG} was changed, or belongs to other "
            "weights; fetch or save the model again."
        )
    # a flipped bit within a tensor is nothing that safetensors could notice
    if stored.get("weights_sha256") not in (None, sha256(path)):
        raise ValueError(f"{path} is damaged (not the file that {CONFIG} was written with); fetch or save it again.")
    return state


#: one thread at a time changes how modules register their parameters.
_BUILDING = threading.Lock()


@contextmanager
def _without_weights() -> Iterator[None]:
    """Build modules whose parameters hold no memory and are not initialised: the saved ones take their places.

    Buffers are real, as some are not saved. Modules that another thread builds meanwhile are as always, which is why
    accelerate's ``init_empty_weights`` does not do here: it empties those too.
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
