"""Kolmogorov-Arnold head."""

import itertools

from torch import nn

from mmfusion.heads.base import Head
from mmfusion.layers import GroupKANLinear
from mmfusion.layers.kan import Basis
from mmfusion.outputs import Fused, FusionOutput
from mmfusion.registry import register


@register("head", "kan")
class KanHead(Head):
    """Kolmogorov-Arnold classifier: one :class:`~mmfusion.layers.GroupKANLinear`, or two with a hidden width.

    One layer is additive in the features: the score of a class is a sum of univariate functions. With a hidden width,
    features interact. Train it with a small learning rate (1e-4), a small weight decay and a short warm-up.

    Args:
        num_groups: Number of univariate functions per layer.
        basis: ``bspline``, ``rational``, ``rbf`` or ``chebyshev``.
        grid_size: Number of grid intervals.
        degree: Degree of the splines, or of the rational numerator.
        hidden_features: Width of a hidden layer; None for a single layer.
        dropout: Dropout before each layer.
        norm: Apply LayerNorm before each layer, which scales the features to the grid.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        num_groups: int = 8,
        basis: Basis = "bspline",
        grid_size: int = 5,
        degree: int = 3,
        hidden_features: int | None = None,
        dropout: float = 0.0,
        norm: bool = True,
    ) -> None:
        super().__init__(in_features, num_classes)
        widths = [in_features, *([] if hidden_features is None else [hidden_features]), num_classes]
        layers: list[nn.Module] = []
        for width, out in itertools.pairwise(widths):
            layers += [nn.LayerNorm(width)] if norm else []
            layers += [nn.Dropout(dropout), GroupKANLinear(width, out, num_groups, basis, grid_size, degree)]
        self.layers = nn.Sequential(*layers)

    def classify(self, fused: Fused) -> FusionOutput:
        """Pooled (B, in_features) -> logits (B, C)."""
        return FusionOutput(logits=self.layers(fused.pooled))
