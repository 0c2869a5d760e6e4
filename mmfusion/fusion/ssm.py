"""Fusion by a state space model over the joined sequence."""

import torch
from torch import nn

from mmfusion.fusion.base import ProjectedFusion, side_by_side
from mmfusion.layers import SSMEncoder
from mmfusion.layers.attention import join_masks
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


@register("fusion", "ssm")
class SSMFusion(ProjectedFusion):
    """Bidirectional Mamba blocks (Gu & Dao 2023) over the joined tokens [v; t], then the mean of each side.

    Time and memory grow linearly with N + L (quadratically for attention). Absent tokens are skipped.

    Args:
        dim: Width both are projected to; the result is twice as wide.
        num_layers: Mamba blocks.
        d_state: Size of each channel's state.
        expand: Inner width of a block as a multiple of ``dim``.
        dropout: Dropout of each block.
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
        super().__init__(image_dim, text_dim, dim, num_features=2 * dim)
        self.image_type = nn.Parameter(torch.randn(dim) * 0.02)
        self.text_type = nn.Parameter(torch.randn(dim) * 0.02)
        self.encoder = SSMEncoder(dim, num_layers, d_state, expand, dropout=dropout)

    def forward(self, image: Features, text: Features) -> Fused:
        """Tokens (B, N, image_dim) and (B, L, text_dim) -> pooled (B, 2 dim), tokens (B, N + L, dim)."""
        v = self.image_proj(image.tokens) + self.image_type
        t = self.text_proj(text.tokens) + self.text_type
        tokens = self.encoder(torch.cat([v, t], dim=1), join_masks(v, image.mask, t, text.mask))
        v, t = tokens.split([v.shape[1], t.shape[1]], dim=1)
        return side_by_side(v, image.mask, t, text.mask)
