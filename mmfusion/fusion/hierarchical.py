"""Hierarchical fusion: image and text levels are fused in pairs."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from mmfusion.fusion.base import FusionBlock
from mmfusion.fusion.pooled import Gated
from mmfusion.names import check_choice
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "hier_interact")
class Hierarchical(FusionBlock):
    """Gated fusion of each level, F_i = Gated(V_i, T_i), and their weighted sum F = sum_i w_i F_i with learned weights.

    With ``softmax`` the level weights sum to one; with ``sigmoid`` each is in (0, 1). Initially all are equal.
    ``gates`` holds ``levels`` (B, num_levels) and the gate of level i, ``image.i`` (B, dim). The tokens are the levels
    F_i.

    The towers provide the levels: the deepest stages of a CNN (layer2, layer3, layer4 of a ResNet), or equally spaced
    hidden states of a transformer (4, 8, 12 of BERT-base; a text encoder with fewer layers than levels repeats some).

    Args:
        dim: Width of every level, and of the result.
        num_levels: Levels of each tower.
        weights: ``softmax`` or ``sigmoid``.
        gate: One gate value per ``dimension`` or per ``sample``.
        image_level_dims: Width of each image level; None uses ``image_dim`` for all. Models set it.
        text_level_dims: Width of each text level; None uses ``text_dim`` for all. Models set it.

    Raises:
        ValueError: A keyword is out of range, or the features have another number of levels.
    """

    reads_levels = True

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 256,
        num_levels: int = 3,
        weights: Literal["softmax", "sigmoid"] = "softmax",
        gate: Literal["dimension", "sample"] = "dimension",
        image_level_dims: Sequence[int] | None = None,
        text_level_dims: Sequence[int] | None = None,
    ) -> None:
        super().__init__(num_features=dim, side_dims=(dim, dim))
        if num_levels < 1:
            raise ValueError(f"num_levels={num_levels} is less than 1.")
        check_choice("weights", weights, ("softmax", "sigmoid"))
        image_dims = image_level_dims or [image_dim] * num_levels
        text_dims = text_level_dims or [text_dim] * num_levels
        for name, dims in (("image", image_dims), ("text", text_dims)):
            if len(dims) != num_levels:
                raise ValueError(f"{name}_level_dims={list(dims)} has to name {num_levels} widths (num_levels).")
        self.weights = weights
        self.levels = nn.ModuleList([Gated(v, t, dim, gate) for v, t in zip(image_dims, text_dims, strict=True)])
        self.level_weight = nn.Parameter(torch.zeros(num_levels))

    def forward(self, image: Features, text: Features) -> Fused:
        """Levels of both towers, each (B, D_i) -> pooled (B, dim), tokens (B, num_levels, dim)."""
        for name, side in (("image", image), ("text", text)):
            if len(side.levels or ()) != len(self.levels):
                found = len(side.levels or ())
                raise ValueError(f"fusion 'hier_interact' reads {len(self.levels)} {name} levels, but got {found}.")
        pairs = zip(self.levels, image.levels or (), text.levels or (), strict=True)
        fused = [block(Features(pooled=v), Features(pooled=t)) for block, v, t in pairs]
        w = self.level_weight.softmax(0) if self.weights == "softmax" else self.level_weight.sigmoid()
        tokens, images, texts = (
            torch.stack([getattr(level, field) for level in fused], dim=1) for field in ("pooled", "image", "text")
        )
        pooled, image_sum, text_sum = (
            torch.einsum("l,bld->bd", w.to(tokens.dtype), levels) for levels in (tokens, images, texts)
        )
        gates = {"levels": w.expand(tokens.shape[0], -1)}
        gates |= {f"image.{i}": level.gates["image"] for i, level in enumerate(fused)}
        return Fused(pooled=pooled, tokens=tokens, image=image_sum, text=text_sum, gates=gates)
