"""Linear and multi-layer heads."""

from __future__ import annotations

from torch import nn

from mmfusion.heads.base import Head
from mmfusion.layers import Mlp
from mmfusion.outputs import Fused, FusionOutput
from mmfusion.registry import register


@register("head", "linear")
class LinearHead(Head):
    """One linear layer.

    Args:
        dropout: before the layer.
    """

    def __init__(self, in_features: int, num_classes: int, dropout: float = 0.0) -> None:
        super().__init__(in_features, num_classes)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(in_features, num_classes)

    def classify(self, fused: Fused) -> FusionOutput:
        """Pooled (B, in_features) -> logits (B, C)."""
        return FusionOutput(logits=self.fc(self.dropout(fused.pooled)))


@register("head", "mlp")
class MlpHead(Head):
    """Linear - ReLU - dropout - Linear, the head of the report's baseline (hidden 256, dropout 0.5).

    Args:
        hidden_features: hidden width.
        dropout: after the ReLU.
    """

    def __init__(self, in_features: int, num_classes: int, hidden_features: int = 256, dropout: float = 0.5) -> None:
        super().__init__(in_features, num_classes)
        self.mlp = Mlp(in_features, hidden_features, num_classes, dropout=dropout)

    def classify(self, fused: Fused) -> FusionOutput:
        """Pooled (B, in_features) -> logits (B, C)."""
        return FusionOutput(logits=self.mlp(fused.pooled))
