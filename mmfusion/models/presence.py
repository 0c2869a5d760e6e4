"""Missing modalities: which samples have which, modality dropout, and the tokens that replace missing ones."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mmfusion.layers import MissingModality, spread
from mmfusion.models.parts import checked_features
from mmfusion.outputs import Features
from mmfusion.towers.base import Tower


def observe(
    towers: Mapping[str, Tower],
    missing: Mapping[str, MissingModality],
    inputs: Mapping[str, Any],
    *,
    training: bool,
    dropout: float,
) -> dict[str, Features]:
    """Features of every modality; a sample that lacks one gets its learned token.

    If none of a modality's inputs are given, no sample of the batch has it. Precomputed features
    (``<modality>_features``, the result of :meth:`Tower.encode`) replace its inputs.

    Args:
        towers: modality -> tower.
        missing: modality -> learned token.
        inputs: Inputs of the model by name.
        training: Whether the model is in training mode.
        dropout: Probability that a training sample loses one of its modalities.

    Raises:
        ValueError: No modality was given.
    """
    encoded = {m: inputs[f"{m}_features"] for m in towers if inputs.get(f"{m}_features") is not None}
    given = {m: encoded.get(m) or tower.select(inputs) for m, tower in towers.items()}
    given = {m: one for m, one in given.items() if one}
    if not given:
        wanted = " or ".join(tower.inputs[0] for tower in towers.values())
        raise ValueError(f"The model needs {wanted}, but got None.")
    some = next(iter(given.values()))
    batch_size = next(iter(some.values())).shape[0]
    present = {m: inputs.get(f"{m}_present") if m in encoded else towers[m].present(inputs) for m in given}
    if training and dropout > 0 and len(given) > 1:
        device = next(iter(some.values())).device
        present = drop_modality(present, dropout, batch_size, device)
    return {
        m: _with_token(tower, missing[m], given[m], present[m], training, m in encoded)
        if m in given
        else missing[m].stand_in(batch_size)
        for m, tower in towers.items()
    }


def without_needless(inputs: Mapping[str, Any], towers: Mapping[str, Tower]) -> dict[str, Any]:
    """Drop each ``<modality>_present`` that is True for all rows, for towers that skip absent samples.

    This is done outside the model, because compiled code cannot branch on values.
    """
    needless = [f"{m}_present" for m, tower in towers.items() if tower.skips_absent]
    return {name: x for name, x in inputs.items() if name not in needless or not x.all()}


def drop_modality(
    present: Mapping[str, Tensor | None], probability: float, batch_size: int, device: torch.device
) -> dict[str, Tensor | None]:
    """Hide one modality of some samples that have several.

    Args:
        present: modality -> (B,) bool; None if all samples have it.
        probability: Share of the samples with several modalities that lose one, chosen uniformly.
        batch_size: B.
        device: Device of the random numbers.
    """
    everywhere = torch.ones(batch_size, dtype=torch.bool, device=device)
    here = torch.stack([everywhere if x is None else x.bool() for x in present.values()], dim=1)
    count = here.sum(dim=1)
    drop = (count > 1) & (torch.rand(batch_size, device=device) < probability)
    chosen = (torch.rand(batch_size, device=device) * count).long()
    goes = drop[:, None] & (here.cumsum(dim=1) - 1 == chosen[:, None])
    return dict(zip(present, (here & ~goes).unbind(dim=1), strict=True))


def _with_token(
    tower: Tower, missing: MissingModality, given: dict[str, Any], present: Tensor | None, training: bool, encoded: bool
) -> Features:
    """Features of one modality, with the learned token for samples that lack it."""
    if present is None or encoded:
        features = checked_features(tower.assemble(given) if encoded else tower(**given), tower)
        if present is None and not training:
            return features
        # in training the token always takes part, because DDP expects a gradient for every parameter
        everywhere = torch.ones(features.pooled.shape[0], dtype=torch.bool, device=features.pooled.device)
        return missing(features, everywhere if present is None else present.bool())
    present = present.bool()
    if training and tower.skips_absent and not present.all():
        if not present.any():
            return missing.stand_in(len(present))
        shown = checked_features(tower(**{name: value[present] for name, value in given.items()}), tower)
        return missing(shown.map(lambda x: spread(x, present)), present)
    return missing(checked_features(tower(**tower.shown(given, present)), tower), present)
