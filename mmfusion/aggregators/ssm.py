"""Selective state space model over the slices."""

from torch import Tensor, nn

from mmfusion.aggregators.base import Aggregator
from mmfusion.layers import SSMEncoder, masked_mean
from mmfusion.outputs import Features
from mmfusion.registry import register


@register("aggregator", "ssm")
class SSMAggregator(Aggregator):
    """Bidirectional Mamba blocks (Gu & Dao 2023) over the slices, pooled by the mean of their outputs.

    Args:
        hidden_size: Width of the blocks.
        num_layers: Number of Mamba blocks.
        d_state: Size of each channel's state.
        dropout: Dropout of each block.
    """

    def __init__(
        self, in_features: int, hidden_size: int = 256, num_layers: int = 1, d_state: int = 16, dropout: float = 0.1
    ) -> None:
        super().__init__(num_features=hidden_size)
        self.proj = nn.Linear(in_features, hidden_size)
        self.encoder = SSMEncoder(hidden_size, num_layers, d_state, dropout=dropout)

    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        x = self.encoder(self.proj(x), mask)
        return Features(tokens=x, pooled=masked_mean(x, mask))
