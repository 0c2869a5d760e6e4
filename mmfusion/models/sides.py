"""The two sides of a fusion block, image and clinical: several modalities of one side joined into one ``Features``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.outputs import Features
from mmfusion.towers.base import SIDES, Tower


@dataclass(frozen=True)
class SideWidths:
    """Feature widths of one side, as in :class:`~mmfusion.towers.Tower`."""

    num_features: int
    level_dims: Sequence[int]
    stream_features: int | None


class Sides(nn.Module):
    """Features by modality -> features by side, image first. The only tower of a side is passed unchanged.

    Args:
        towers: modality -> tower.

    Attributes:
        widths: Widths of each side that has a tower, image first.
    """

    def __init__(self, towers: Mapping[str, Tower]) -> None:
        super().__init__()
        of_side = {side: {m: t for m, t in towers.items() if t.side == side} for side in SIDES}
        self.members = {side: list(own) for side, own in of_side.items() if own}
        self.joined = nn.ModuleDict({side: JoinedSide(own) for side, own in of_side.items() if len(own) > 1})
        whole: list[Any] = [self.joined[side] if len(own) > 1 else towers[own[0]] for side, own in self.members.items()]
        self.widths = [SideWidths(x.num_features, x.level_dims, x.stream_features) for x in whole]

    def forward(self, features: Mapping[str, Features]) -> list[Features]:
        """Features by modality -> one ``Features`` for each side."""
        return [
            self.joined[side]({m: features[m] for m in members}) if len(members) > 1 else features[members[0]]
            for side, members in self.members.items()
        ]


class PooledKeeper:
    """Hook of :class:`Sides` that keeps the pooled features of each modality, without their gradients.

    Attributes:
        features: Modality -> features of the last batch.
    """

    def __init__(self) -> None:
        self.features: dict[str, Features] = {}

    def __call__(self, _: nn.Module, given: tuple[Mapping[str, Features]]) -> None:
        self.features = {modality: Features(pooled=x.pooled.detach()) for modality, x in given[0].items()}


class JoinedSide(nn.Module):
    """Joins the features of several towers, so that a fusion block or a head sees them as one modality.

    Tokens and pooled vector of each tower are projected to the width of the first, with the same matrix, so that a
    fusion block may read either. ``tokens`` are the concatenated tokens of all towers; a tower without tokens adds its
    pooled vector. ``pooled`` is the mean of the pooled vectors.
    Levels are those of the first tower that has any, with the last one replaced by ``pooled``. If a sample lacks a
    modality, its learned token is used.

    Args:
        towers: modality -> tower, in order.
    """

    def __init__(self, towers: Mapping[str, Tower]) -> None:
        super().__init__()
        widths = {modality: tower.num_features for modality, tower in towers.items()}
        dim = next(iter(widths.values()))
        self.projections = nn.ModuleDict(
            {m: nn.Identity() if width == dim else nn.Linear(width, dim) for m, width in widths.items()}
        )
        self.num_features = dim
        levels = next((tower.level_dims for tower in towers.values() if tower.level_dims), ())
        self.level_dims = [*levels[:-1], dim] if levels else []
        self.stream_features = next((t.stream_features for t in towers.values() if t.stream_features), None)

    def forward(self, features: Mapping[str, Features]) -> Features:
        """Features by modality -> one ``Features`` of width ``num_features``."""
        vectors, tokens, masks = [], [], []
        for modality, one in features.items():
            project = self.projections[modality]
            vectors.append(project(one.pooled))
            own = vectors[-1].unsqueeze(1) if one.tokens is None else project(one.tokens)
            tokens.append(own)
            is_real = own.new_ones(own.shape[:2], dtype=torch.bool)
            masks.append(is_real if one.tokens is None or one.mask is None else one.mask)
        pooled = torch.stack(vectors).mean(dim=0)
        levels = next((one.levels for one in features.values() if one.levels is not None), None)
        return Features(
            tokens=torch.cat(tokens, dim=1),
            pooled=pooled,
            mask=torch.cat(masks, dim=1),
            levels=None if levels is None else (*levels[:-1], pooled),
            streams=next((one.streams for one in features.values() if one.streams is not None), None),
            gates=merged(*(one.gates for one in features.values())),
            attentions=merged(*(one.attentions for one in features.values())),
        )


def merged(*named: Mapping[str, Any] | None) -> dict[str, Tensor] | None:
    """Merge dicts, later ones overriding earlier ones; None if all are empty."""
    return {name: value for some in named for name, value in (some or {}).items()} or None
