"""Loading of saved models from their folders, without network access and without pickle."""

import os
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.artifacts.folder import read_config
from mmfusion.artifacts.integrity import check_files, check_weights
from mmfusion.artifacts.names import CONFIG, WEIGHTS
from mmfusion.artifacts.versions import renamed_tensors
from mmfusion.models.fitting import image_cfg
from mmfusion.models.fusion_model import FusionModel, model_keywords
from mmfusion.models.saving import FITTED, named_parts
from mmfusion.names import did_you_mean, one_line
from mmfusion.repositories import no_network

#: Entries of timm's ``pretrained_cfg`` on how images are made.
IMAGE_CFG = ("input_size", "mean", "std", "interpolation", "crop_pct", "crop_mode")

#: pickle files of torch and other libraries.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")


def _check_plugins(model: dict[str, Any], plugins: dict[str, str]) -> None:
    """Raise ValueError for parts that are not registered. Modules named in a folder are never imported."""
    for entry, kind, name in named_parts(model):
        if entry in plugins and not registry.is_known(kind, name):
            raise ValueError(registry.missing_hint(kind, name, plugins[entry]))


def refuse_keywords(overrides: Mapping[str, Any], known: list[str]) -> None:
    """Raise TypeError, with the nearest name, for an unknown keyword of a model."""
    for name in overrides:
        if name not in known:
            why = "all images are read as RGB, also gray ones" if name == "in_chans" else did_you_mean(name, known)
            raise TypeError(f"create_model got an unexpected keyword {name!r}; {why}")


def load_model(folder: str | os.PathLike[str], *, num_classes: int | None = None, **overrides: Any) -> FusionModel:
    """Build a saved model from its folder alone and load its weights strictly.

    Args:
        folder: Folder that :func:`save_model` wrote.
        num_classes: Number of classes; if it differs from the saved one, the head is new, with a warning.
        overrides: Model keywords that override the saved ones.

    Raises:
        FileNotFoundError: A file of the model is missing.
        ValueError: A file is damaged, tensors are missing, unexpected or of another shape, or a part belongs to a
            plugin that is not loaded; the message names them.
        TypeError: An override is not a keyword of a model.
    """
    folder = Path(folder)
    stored = read_config(folder)
    if "export" in stored:
        raise ValueError(
            f"{folder} contains an exported model, whose weights are fixed; run it with mmfusion.Predictor."
        )
    refuse_keywords(overrides, model_keywords())
    weights = _read_weights(folder)
    saved = stored["model"]
    nested = {n: {**(saved.get(n) or {}), **(overrides[n] or {})} for n in overrides if n.endswith("_args")}
    config = {**saved, **overrides, **nested}
    try:
        _check_plugins(config, {k: v for k, v in (stored.get("plugins") or {}).items() if k not in overrides})
        with no_network(), _without_weights(None if overrides else _Budget.of(weights)):
            model = FusionModel(**config)
    except ImportError:
        raise
    except Exception as error:  # libraries raise many types of errors for invalid values
        kind = TypeError if overrides and isinstance(error, TypeError) else ValueError
        raise kind(f"{folder / CONFIG}: {one_line(error)}") from None
    model.architecture = stored.get("architecture")
    model.origins = stored.get("encoders") or {}
    model.fitted = [name for name in FITTED if stored.get(name)]
    model.preprocessing = _preprocessing(stored, folder, model.pretrained_cfg)
    own = model.state_dict()
    state = _checked(weights, folder, stored, {name: tensor.shape for name, tensor in own.items()})
    # copied, in the model's own precision: the loaded tensors are views of the file, which another process may replace,
    # and are not aligned to 64 bytes like torch's own, so that matrix kernels may round differently
    owned = {name: tensor.to(own[name].dtype, copy=True) for name, tensor in state.items()}
    model.load_state_dict(owned, assign=True)
    if num_classes is not None and num_classes != model.num_classes:
        if num_classes:  # without classes there is no head to train
            warnings.warn(
                f"{folder} was saved with {model.num_classes} classes, but num_classes={num_classes}: the head is new, "
                "with random weights, and has to be trained.",
                stacklevel=3,
            )
        model.reset_classifier(num_classes)
    return model.eval()


def _preprocessing(stored: Mapping[str, Any], folder: Path, encoder: dict[str, Any]) -> dict[str, Any]:
    """How the images of a saved model are made, and its tag, the end of a folder named ``arch.tag``; timm's names.

    Without a processor, these are the encoder's settings, with the saved size and normalization.
    """
    processor = stored.get("processor")
    cfg = image_cfg(processor) if isinstance(processor, dict) else {}
    known = encoder | {name: tuple(value) for name, value in stored.items() if isinstance(value, list)}
    cfg = cfg or {name: known[name] for name in IMAGE_CFG if name in known}
    architecture, _, tag = folder.name.partition(".")
    return cfg | ({"tag": tag} if tag and architecture == stored.get("architecture") else {})


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """The saved tensors as views of the file, by their names in the file."""
    path = folder / WEIGHTS
    if not path.is_file():
        pickled = sorted(file.name for file in folder.iterdir() if file.suffix in PICKLES)
        why = f", and {pickled[0]} is pickle, which may run any code and is not read" if pickled else ""
        raise FileNotFoundError(f"{folder} has no {WEIGHTS}{why}; save or fetch the model again.")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}); fetch or save the model again.") from None


def _checked(
    state: dict[str, Tensor], folder: Path, stored: Mapping[str, Any], shapes: Mapping[str, torch.Size]
) -> dict[str, Tensor]:
    """The tensors under the model's current names, after checking names, shapes and values."""
    path = folder / WEIGHTS
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
    # safetensors does not detect a flipped bit within a tensor
    check_weights(folder, stored)
    check_files(folder, WEIGHTS)
    return state


#: only one thread at a time may change how modules register their parameters.
_BUILDING = threading.Lock()


@dataclass
class _Budget:
    """Limit on the size of a model built from a configuration: a multiple of the size of its weights.

    Attributes:
        parameters: Number of parameters left.
        elements: Number of elements left.
    """

    parameters: int
    elements: int

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "_Budget":
        return cls(4 * len(weights) + 1_000, 4 * sum(tensor.numel() for tensor in weights.values()) + 10_000_000)

    def spend(self, parameter: nn.Parameter) -> None:
        self.parameters -= 1
        self.elements -= parameter.numel()
        if min(self.parameters, self.elements) < 0:
            raise ValueError(f"it describes a model of many times the size of {WEIGHTS}")


@contextmanager
def _without_weights(budget: _Budget | None) -> Iterator[None]:
    """Build modules whose parameters use no memory and are not initialized; the saved ones replace them.

    Buffers are real, because some are not saved. Modules that another thread builds at the same time are unaffected;
    accelerate's ``init_empty_weights`` would empty those, too.
    """
    with _BUILDING:
        register, builder = nn.Module.register_parameter, threading.get_ident()

        def register_empty(module: nn.Module, name: str, param: nn.Parameter | None) -> None:
            if param is not None and threading.get_ident() == builder:
                if budget is not None:
                    budget.spend(param)
                param = nn.Parameter(param.to("meta"), requires_grad=param.requires_grad)
            register(module, name, param)

        nn.Module.register_parameter = register_empty  # type: ignore[assignment]
        try:
            yield
        finally:
            nn.Module.register_parameter = register  # type: ignore[method-assign]
