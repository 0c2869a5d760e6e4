"""Pooling that is independent of the order: attention with a learned query, or the mean."""

import torch
from torch import Tensor, nn

from mmfusion.aggregators.base import Aggregator
from mmfusion.layers import attend, masked_mean
from mmfusion.layers.attention import check_heads, merge_heads, split_heads
from mmfusion.outputs import Features
from mmfusion.registry import register


@register("aggregator", "attention")
class AttentionAggregator(Aggregator):
    """Attention pooling, a_i = softmax(q . k_i / sqrt(d)), h = sum a_i v_i (after Ilse et al. 2018).

    Args:
        hidden_size: Width of keys and values.
        num_heads: Number of queries, each over its part of the width.
    """

    def __init__(self, in_features: int, hidden_size: int = 256, num_heads: int = 1) -> None:
        check_heads(hidden_size, num_heads)
        super().__init__(num_features=hidden_size)
        self.num_heads = num_heads
        self.query = nn.Parameter(torch.randn(hidden_size))
        self.key = nn.Linear(in_features, hidden_size)
        self.value = nn.Linear(in_features, hidden_size)

    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        query = self.query.to(x.dtype).expand(x.shape[0], 1, -1)
        query, key, value = (split_heads(t, self.num_heads) for t in (query, self.key(x), self.value(x)))
        attended, weights = attend(query, key, value, mask)
        return Features(
            tokens=merge_heads(value), pooled=merge_heads(attended).squeeze(1), attentions={"slices": weights}
        )


@register("aggregator", "mean")
class MeanAggregator(Aggregator):
    """Mean over the present slices, without parameters."""

    def __init__(self, in_features: int) -> None:
        super().__init__(num_features=in_features)

    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        return Features(tokens=x, pooled=masked_mean(x, mask))
