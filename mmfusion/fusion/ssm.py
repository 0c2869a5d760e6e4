"""Fusion by a state space model over the joined sequence (report section 10, eq. 27-28)."""

from __future__ import annotations

import torch
from torch import nn

from mmfusion.fusion.base import FusionBlock
from mmfusion.layers import SSMEncoder, masked_mean
from mmfusion.layers.attention import join_masks
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "ssm")
class SSMFusion(FusionBlock):
    """Image tokens and text tokens as one sequence [v; t], read in both directions by Mamba blocks (Gu & Dao 2023);
    each side's mean.

    Time and memory grow linearly with N + L, where attention's grow with the square. Absent tokens are skipped.

    Args:
        image_dim: width of the image tokens.
        text_dim: width of the text tokens.
        dim: width both are projected to; the result is twice as wide.
        num_layers: Mamba blocks.
        d_state: size of each channel's state.
        expand: inner width of a block over ``dim``.
        dropout: of each block.
    """

    def __init__(
        self,
        image_dim: int,
        text_dim: int,
        dim: int = 256,
        num_layers: int = 1,
        d_state: int = 16,
        expand: int = 1,
        dropout: float = 0.1,
    ) -> None:
        super().__init__(num_features=2 * dim, side_dims=(dim, dim))
        self.token_features = dim
        self.image_proj = nn.Linear(image_dim, dim)
        self.text_proj = nn.Linear(text_dim, dim)
        self.image_type = nn.Parameter(torch.randn(dim) * 0.02)
        self.text_type = nn.Parameter(torch.randn(dim) * 0.02)
        self.encoder = SSMEncoder(dim, num_layers, d_state, expand, dropout=dropout)

    def forward(self, image: Features, text: Features) -> Fused:
        """Tokens (B, N, image_dim) and (B, L, text_dim) -> pooled (B, 2 dim), tokens (B, N + L, dim)."""
        v = self.image_proj(image.tokens) + self.image_type
        t = self.text_proj(text.tokens) + self.text_type
        mask = join_masks(v, image.mask, t, text.mask)
        tokens = self.encoder(torch.cat([v, t], dim=1), mask)
        v, t = tokens.split([v.shape[1], t.shape[1]], dim=1)
        image_pooled, text_pooled = masked_mean(v, image.mask), masked_mean(t, text.mask)
        return Fused(
            pooled=torch.cat([image_pooled, text_pooled], dim=-1),
            tokens=tokens,
            mask=mask,
            image=image_pooled,
            text=text_pooled,
        )
