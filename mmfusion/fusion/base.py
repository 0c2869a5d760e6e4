"""Base classes of fusion blocks."""

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmfusion.layers import masked_mean
from mmfusion.layers.attention import join_masks
from mmfusion.outputs import Features, Fused


class FusionBlock(nn.Module):
    """Base class of fusion blocks: features of two sides in, ``Fused`` out.

    A custom block only needs ``__init__(image_dim, text_dim, dim)``, the widths of both sides' features and of the
    projection, and ``forward(image, text)``; deriving from this class declares what it reads and the width of its
    output.

    Attributes:
        reads_levels: Whether the block reads ``Features.levels``; if so, the towers return them.
        num_features: Width of ``Fused.pooled``.
        token_features: Width of ``Fused.tokens``; None if the block returns none, or tokens of width ``num_features``.
        side_dims: Widths of ``Fused.image`` and ``Fused.text``, which the auxiliary heads classify.
    """

    reads_levels: ClassVar[bool] = False
    token_features: int | None = None

    def __init__(self, num_features: int, side_dims: tuple[int, int]) -> None:
        super().__init__()
        self.num_features, self.side_dims = num_features, side_dims

    @abstractmethod
    def forward(self, image: Features, text: Features) -> Fused:
        """Fuse the features of both sides."""


class ProjectedFusion(FusionBlock):
    """Base of blocks that project both sides to one width.

    Args:
        image_dim: Width of the image features.
        text_dim: Width of the text features.
        dim: Width both are projected to, and of the tokens.
        num_features: Width of the result; None uses ``dim``.
    """

    def __init__(self, image_dim: int, text_dim: int, dim: int, num_features: int | None = None) -> None:
        super().__init__(num_features=num_features or dim, side_dims=(dim, dim))
        self.token_features = dim
        self.image_proj: nn.Module = nn.Linear(image_dim, dim)
        self.text_proj: nn.Module = nn.Linear(text_dim, dim)


def side_by_side(v: Tensor, v_mask: Tensor | None, t: Tensor, t_mask: Tensor | None, **fields: Any) -> Fused:
    """Both sides' tokens (B, N, D) and (B, L, D) as tokens (B, N + L, D); pooled, the mean of each (B, 2 D)."""
    image, text = masked_mean(v, v_mask), masked_mean(t, t_mask)
    pooled, tokens = torch.cat([image, text], dim=-1), torch.cat([v, t], dim=1)
    return Fused(pooled=pooled, tokens=tokens, mask=join_masks(v, v_mask, t, t_mask), image=image, text=text, **fields)
