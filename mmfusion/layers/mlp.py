"""Two-layer perceptron."""

from torch import Tensor, nn


class Mlp(nn.Module):
    """Linear - activation - dropout - Linear.

    Args:
        in_features: Width of the input.
        hidden_features: Hidden width.
        out_features: Width of the output.
        dropout: Dropout after the activation.
        activation: Module class of the activation.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int,
        dropout: float = 0.0,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features)
        self.act = activation()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden_features, out_features)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return self.fc2(self.dropout(self.act(self.fc1(x))))
