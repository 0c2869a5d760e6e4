"""Attention-based multiple-instance learning (Ilse et al. 2018): a small network scores each instance of a bag."""

import torch
from torch import Tensor, nn

from mmfusion.aggregators.base import Aggregator
from mmfusion.layers.precision import at_least_float32
from mmfusion.outputs import Features
from mmfusion.registry import register


@register("aggregator", "abmil")
class ABMILAggregator(Aggregator):
    """Attention MIL, a = softmax(w . (tanh(V h) * sigmoid(U h))), z = sum a_i h_i (Ilse et al. 2018, eq. 9).

    Independent of the order. The input vectors are averaged, so that the result has their width.

    Args:
        hidden_size: Width of V and U.
        gated: Multiply by the gate sigmoid(U h); False leaves it out (eq. 8).
        dropout: Dropout on the input of w.
    """

    def __init__(self, in_features: int, hidden_size: int = 128, gated: bool = True, dropout: float = 0.0) -> None:
        super().__init__(num_features=in_features)
        self.value = nn.Linear(in_features, hidden_size)
        self.gate = nn.Linear(in_features, hidden_size) if gated else None
        self.dropout = nn.Dropout(dropout)
        self.score = nn.Linear(hidden_size, 1, bias=False)  # a bias would cancel in the softmax

    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        hidden = self.value(x).tanh()
        if self.gate is not None:
            hidden = hidden * self.gate(x).sigmoid()
        scores = at_least_float32(self.score(self.dropout(hidden)).squeeze(-1))
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        pooled = (weights.to(x.dtype).unsqueeze(1) @ x).squeeze(1)
        return Features(tokens=x, pooled=pooled, attentions={"slices": weights[:, None, None]})
