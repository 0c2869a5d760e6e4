"""The Kolmogorov-Arnold head."""

import itertools

from torch import nn

from mmfusion.heads.base import Head
from mmfusion.layers import GroupKANLinear
from mmfusion.layers.kan import Basis
from mmfusion.outputs import Fused, FusionOutput
from mmfusion.registry import register


@register("head", "kan")
class KanHead(Head):
    """One :class:`~mmfusion.layers.GroupKANLinear` in place of the linear classifier (report eq. 3-4), or two.

    One layer is additive in the features: each class scores a sum of univariate functions. With a hidden width,
    features interact. The report trains it at lr 1e-4 with a small weight decay and a short warm-up.

    Args:
        num_groups: univariate functions per layer.
        basis: ``bspline``, ``rational``, ``rbf`` or ``chebyshev``.
        grid_size: intervals of the grid.
        degree: of the splines, or of the rational numerator.
        hidden_features: width of a hidden layer; None has none.
        dropout: before each layer.
        norm: LayerNorm before each layer, which brings the features onto the grid.
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
