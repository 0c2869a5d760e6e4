"""Modality sensitivity: change of the predictions if a modality is taken from another row."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from mmfusion.task import task_of

#: Relative difference of feature vectors above which their inputs differ, rather than by rounding.
DISTINCT = 1e-4


@torch.no_grad()
def modality_sensitivity(model: Any, batches: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Mean change of the predictions if one modality of each row is exchanged with another row's.

    A row takes the features of the modality from the row half a batch later and keeps all others. The change is
    :meth:`mmfusion.task.Task.change`, for classes the total variation distance: half the sum of absolute differences of
    the probabilities, from 0 (unused) to 1. Pairs of rows with the same value of the modality are ignored.

    Mode, BatchNorm statistics and random state of the model are unchanged. The towers run once per batch.

    Args:
        model: A ``FusionModel``.
        batches: Inputs of the model by name, each (B, ...), in random order.

    Returns:
        Modality -> mean change, without modalities that are equal in all rows; empty for a single modality.
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
                exchanged = features[modality].map(lambda x: x[other])  # noqa: B023  # called immediately
                change = task_of(model).change(_raw(model, {**features, modality: exchanged}), own)
                changes[modality].append(change[_differ(features[modality].pooled, exchanged.pooled)])
    finally:
        model.train(was_training)
    found = {modality: torch.cat(some) for modality, some in changes.items() if some}
    return {modality: change.mean().item() for modality, change in found.items() if len(change)}


def _raw(model: Any, features: Mapping[str, Any]) -> Tensor:
    return model.forward_head(model.fuse(features)).double()


def _differ(a: Tensor, b: Tensor) -> Tensor:
    """Whether rows (B,) of two tensors (B, D) differ by more than rounding."""
    return (a - b).abs().amax(dim=-1) > DISTINCT * torch.maximum(a.abs(), b.abs()).amax(dim=-1)
