"""Base class of heads."""

from abc import abstractmethod

from torch import Tensor, nn

from mmfusion.layers import masked_mean
from mmfusion.outputs import Fused, FusionOutput


class Head(nn.Module):
    """Base class of heads, which classify a fused representation.

    ``forward`` takes the ``Fused`` of a fusion block or, if the head is used alone, a tensor: (B, in_features), or (B,
    N, in_features) tokens. It returns a ``FusionOutput``, so that any loss works with a head alone.

    Args:
        in_features: Width of the input.
        num_classes: Number of classes C.
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_classes = num_classes

    @abstractmethod
    def classify(self, fused: Fused) -> FusionOutput:
        """``Fused`` -> logits (B, C) and further outputs of the head."""

    def forward(self, x: Fused | Tensor) -> FusionOutput:
        """Classify a ``Fused`` or a plain tensor."""
        if isinstance(x, Tensor):
            x = Fused(pooled=x) if x.ndim == 2 else Fused(pooled=masked_mean(x), tokens=x)
        return self.classify(x)
