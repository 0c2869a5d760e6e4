"""Fusion of the two pooled vectors: concatenation, sum, product, gate, low-rank bilinear."""

from typing import Literal

import torch
from torch import Tensor, nn

from mmfusion.fusion.base import FusionBlock, ProjectedFusion
from mmfusion.names import check_choice
from mmfusion.outputs import Features, Fused
from mmfusion.registry import register


class PooledFusion(ProjectedFusion):
    """Base of blocks that project both pooled vectors to one width and merge them in ``combine``."""

    def __init__(self, image_dim: int, text_dim: int, dim: int = 256) -> None:
        super().__init__(image_dim, text_dim, dim)

    def combine(self, image: Tensor, text: Tensor) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Two (B, dim) vectors -> the fused (B, dim) and the gates, if there are any."""
        raise NotImplementedError

    def forward(self, image: Features, text: Features) -> Fused:
        """Pooled (B, image_dim) and (B, text_dim) -> pooled (B, dim)."""
        v, t = self.image_proj(image.pooled), self.text_proj(text.pooled)
        pooled, gates = self.combine(v, t)
        return Fused(pooled=pooled, tokens=torch.stack([v, t], dim=1), image=v, text=t, gates=gates)


@register("fusion", "concat")
class Concat(FusionBlock):
    """Concatenation [v; t].

    Args:
        dim: Width that each side is projected to first; None concatenates the features unchanged.
    """

    def __init__(self, image_dim: int, text_dim: int, dim: int | None = None) -> None:
        sides = (image_dim, text_dim) if dim is None else (dim, dim)
        super().__init__(num_features=sum(sides), side_dims=sides)
        self.image_proj = nn.Identity() if dim is None else nn.Linear(image_dim, dim)
        self.text_proj = nn.Identity() if dim is None else nn.Linear(text_dim, dim)

    def forward(self, image: Features, text: Features) -> Fused:
        """Pooled (B, image_dim) and (B, text_dim) -> pooled (B, sum of both widths)."""
        v, t = self.image_proj(image.pooled), self.text_proj(text.pooled)
        return Fused(pooled=torch.cat([v, t], dim=-1), image=v, text=t)


@register("fusion", "add")
class Add(PooledFusion):
    """Sum of both projected vectors, P_v v + P_t t."""

    def combine(self, image: Tensor, text: Tensor) -> tuple[Tensor, None]:
        """Element-wise sum."""
        return image + text, None


@register("fusion", "mul")
class Mul(PooledFusion):
    """Element-wise product of both projected vectors, P_v v * P_t t."""

    def combine(self, image: Tensor, text: Tensor) -> tuple[Tensor, None]:
        """Element-wise product."""
        return image * text, None


@register("fusion", "gated")
class Gated(PooledFusion):
    """Gated sum z * v + (1 - z) * t, z = sigmoid(W [v; t]) (gated multimodal unit, Arevalo et al. 2017).

    Args:
        dim: Width both are projected to.
        gate: One z per ``dimension`` or one per ``sample``.
    """

    def __init__(
        self, image_dim: int, text_dim: int, dim: int = 256, gate: Literal["dimension", "sample"] = "dimension"
    ) -> None:
        super().__init__(image_dim, text_dim, dim)
        check_choice("gate", gate, ("dimension", "sample"))
        self.gate = nn.Linear(2 * dim, dim if gate == "dimension" else 1)

    def combine(self, image: Tensor, text: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Convex combination; the gate ``image`` is z (B, dim) or (B, 1)."""
        z = self.gate(torch.cat([image, text], dim=-1)).sigmoid()
        return z * image + (1 - z) * text, {"image": z}


@register("fusion", "bilinear")
class LowRankBilinear(ProjectedFusion):
    """Low-rank bilinear pooling, W_o ((U^T v) * (V^T t)) (Kim et al. 2017).

    Args:
        dim: Width of the result.
        rank: Rank of the interaction; None uses ``dim``.
    """

    def __init__(self, image_dim: int, text_dim: int, dim: int = 256, rank: int | None = None) -> None:
        rank = dim if rank is None else rank
        super().__init__(image_dim, text_dim, rank, num_features=dim)
        self.out = nn.Linear(rank, dim)

    def forward(self, image: Features, text: Features) -> Fused:
        """Pooled (B, image_dim) and (B, text_dim) -> pooled (B, dim)."""
        v, t = self.image_proj(image.pooled), self.text_proj(text.pooled)
        return Fused(pooled=self.out(v * t), tokens=torch.stack([v, t], dim=1), image=v, text=t)
