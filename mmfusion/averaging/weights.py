"""Mean of several models' weights, and matching BatchNorm statistics."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def average_weights(states: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Mean of floating-point tensors, computed in float64; other tensors come from the first model."""
    return {
        name: torch.stack([state[name].double() for state in states]).mean(dim=0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in states[0].items()
    }


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """The BatchNorm layers of a model that keep statistics, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@torch.no_grad()
def estimate_batch_norm(model: nn.Module, batches: Iterable[Mapping[str, Tensor]]) -> None:
    """Replace the running means and variances of BatchNorm by their mean over batches.

    The rest of the model computes as in evaluation: without dropout.

    Args:
        model: Called as ``model(**batch)``; it is left in evaluation mode.
        batches: Keyword tensors.

    Raises:
        ValueError: There is no batch.
    """
    model.eval()
    norms = list(batch_norms(model).values())
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # torch then computes the mean over all batches
        norm.train()
    count = 0
    for batch in batches:
        model(**{name: value for name, value in batch.items() if name != "labels"})
        count += 1
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    model.eval()
    if not count:
        raise ValueError("No training rows with an image to estimate BatchNorm's statistics on.")
