"""Which modalities a model reads: how far its answer moves when a modality comes from another row."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmfusion.task import task_of

#: relative difference from which two feature vectors are of different inputs, not of rounding.
DISTINCT = 1e-4


@torch.no_grad()
def modality_sensitivity(model: Any, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean change of the answers when one modality of each row is exchanged for another row's.

    A row takes the modality's features from the row half a batch further on, and keeps all others. The change is
    :meth:`mmfusion.task.Task.change`, of classes the total variation distance: half the sum of absolute differences of
    the probabilities, from 0 (the modality is not read) to 1. Pairs of
    rows in which the modality is the same count for nothing.

    The model is left as it was: mode, BatchNorm statistics and random numbers too. The towers run once per batch.

    Args:
        model: A ``FusionModel``.
        batches: Inputs of the model by name, each (B, ...), with rows in no particular order.

    Returns:
        Modality -> mean change, without modalities in which no two rows differ; empty for a model of one modality.
    """
    modalities, was_training = list(model.towers), model.training
    if len(modalities) < 2:
        return {}
    changes: dict[str, list[Tensor]] = {modality: [] for modality in modalities}
    model.eval()
    try:
        for batch in batches:
            features = model.tower_features(**batch)
            own = _raw(model, features)
            other = torch.arange(len(own), device=own.device).roll(len(own) // 2)
            for modality in modalities:
                exchanged = features[modality].map(lambda x: x[other])  # noqa: B023  # called at once
                change = task_of(model).change(_raw(model, {**features, modality: exchanged}), own)
                changes[modality].append(change[_differ(features[modality].pooled, exchanged.pooled)])
    finally:
        model.train(was_training)
    found = {modality: torch.cat(some) for modality, some in changes.items() if some}
    return {modality: change.mean().item() for modality, change in found.items() if len(change)}


def _raw(model: Any, features: Mapping[str, Any]) -> Tensor:
    return model.forward_head(model.fuse(features)).double()


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Which rows (B,) of two tensors (B, D) differ by more than rounding."""
    return (a - b).abs().amax(dim=-1) > DISTINCT * torch.maximum(a.abs(), b.abs()).amax(dim=-1)
