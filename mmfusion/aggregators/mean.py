"""The mean of the slices: what every other aggregator is measured against."""

from __future__ import annotations

from torch import Tensor

from mmfusion.aggregators.base import Aggregator
from mmfusion.layers import masked_mean
from mmfusion.outputs import Features
from mmfusion.registry import register


@register("aggregator", "mean")
class MeanAggregator(Aggregator):
    """Mean over the present slices; no parameters, no order."""

    def __init__(self, in_features: int) -> None:
        super().__init__(num_features=in_features)

    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        return Features(tokens=x, pooled=masked_mean(x, mask))
