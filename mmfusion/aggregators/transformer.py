"""Transformer with position encoding over the slices."""

import math

import torch
from torch import Tensor, nn

from mmfusion.aggregators.base import Aggregator
from mmfusion.layers import CrossAttentionLayer, masked_mean
from mmfusion.outputs import Features
from mmfusion.registry import register


def sinusoidal_encoding(position: Tensor, dim: int) -> Tensor:
    """Sine and cosine of position / 10000^(2i / dim) (Vaswani et al. 2017): (...,) -> (..., dim), dim even.

    In double precision for positions of that type, in single precision for all others.
    """
    dtype = torch.promote_types(position.dtype, torch.float32)
    i = torch.arange(0, dim, 2, dtype=dtype, device=position.device)
    angle = position.unsqueeze(-1) * torch.exp(i * (-math.log(10000.0) / dim))
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)


@register("aggregator", "transformer")
class TransformerAggregator(Aggregator):
    """Transformer H = Transformer(F + P) with sinusoidal positions P (Vaswani et al. 2017), pooled by the mean of H.

    Args:
        hidden_size: Width, an even number.
        num_layers: Number of pre-norm layers.
        num_heads: Number of attention heads.
        dropout: Dropout within each layer.
    """

    def __init__(
        self, in_features: int, hidden_size: int = 256, num_layers: int = 1, num_heads: int = 8, dropout: float = 0.1
    ) -> None:
        if hidden_size % 2:
            raise ValueError(f"hidden_size={hidden_size} is odd; the position encoding needs an even one.")
        super().__init__(num_features=hidden_size)
        self.proj = nn.Linear(in_features, hidden_size)
        self.layers = nn.ModuleList(
            [CrossAttentionLayer(hidden_size, num_heads, dropout=dropout) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(hidden_size)

    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        present = x.new_ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        x = self.proj(x)
        position = (present.cumsum(dim=1) - 1).to(torch.promote_types(x.dtype, torch.float32))
        x = x + sinusoidal_encoding(position, self.num_features).to(x.dtype)
        attentions = {}
        for i, layer in enumerate(self.layers):
            x, attentions[f"slices.{i}"] = layer(x, x, mask)
        x = self.norm(x)
        return Features(tokens=x, pooled=masked_mean(x, mask), attentions=attentions)
