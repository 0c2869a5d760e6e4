"""Linear and multi-layer heads."""

from torch import nn

from mmfusion.heads.base import Head
from mmfusion.layers import Mlp
from mmfusion.outputs import Fused, FusionOutput
from mmfusion.registry import register


@register("head", "linear")
class LinearHead(Head):
    """One linear layer.

    Args:
        dropout: Dropout before the layer.
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
    """MLP: Linear - ReLU - dropout - Linear.

    Args:
        hidden_features: Hidden width.
        dropout: Dropout after the ReLU.
    """

    def __init__(self, in_features: int, num_classes: int, hidden_features: int = 256, dropout: float = 0.5) -> None:
        super().__init__(in_features, num_classes)
        self.mlp = Mlp(in_features, hidden_features, num_classes, dropout=dropout)

    def classify(self, fused: Fused) -> FusionOutput:
        """Pooled (B, in_features) -> logits (B, C)."""
        return FusionOutput(logits=self.mlp(fused.pooled))


@register("head", "residual_mlp")
class ResidualMlpHead(Head):
    """Residual MLP, y = x + f(x) with f = Linear - ReLU - dropout - Linear, then a linear layer.

    Args:
        hidden_features: Hidden width of f.
        num_blocks: Number of residual steps, each with its own f.
        dropout: Dropout within f.
    """

    def __init__(
        self, in_features: int, num_classes: int, hidden_features: int = 256, num_blocks: int = 1, dropout: float = 0.5
    ) -> None:
        super().__init__(in_features, num_classes)
        self.blocks = nn.ModuleList(
            [Mlp(in_features, hidden_features, in_features, dropout) for _ in range(num_blocks)]
        )
        self.fc = nn.Linear(in_features, num_classes)

    def classify(self, fused: Fused) -> FusionOutput:
        """Pooled (B, in_features) -> logits (B, C)."""
        x = fused.pooled
        for block in self.blocks:
            x = x + block(x)
        return FusionOutput(logits=self.fc(x))
