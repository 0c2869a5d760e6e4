"""Bidirectional LSTM over the slices."""

import torch
from torch import Tensor, nn

from mmfusion.aggregators.base import Aggregator
from mmfusion.layers import compact, masked_mean, take
from mmfusion.outputs import Features
from mmfusion.registry import register


@register("aggregator", "bilstm")
class BiLSTMAggregator(Aggregator):
    """Bidirectional LSTM, h_t = BiLSTM(f_t, h_{t-1}), pooled by the mean over t (Schuster & Paliwal 1997).

    The present slices are moved to the front, and for the second direction each study is reversed within its own
    length, so that padded slices come last in both. The result equals that of packed sequences.

    Args:
        hidden_size: Width of one direction; the result is twice as wide.
        num_layers: Number of bidirectional layers.
        dropout: Dropout on the input of every layer but the first.
    """

    def __init__(self, in_features: int, hidden_size: int = 256, num_layers: int = 1, dropout: float = 0.1) -> None:
        super().__init__(num_features=2 * hidden_size)
        widths = [in_features] + [2 * hidden_size] * (num_layers - 1)
        self.forward_layers = nn.ModuleList([nn.LSTM(width, hidden_size, batch_first=True) for width in widths])
        self.backward_layers = nn.ModuleList([nn.LSTM(width, hidden_size, batch_first=True) for width in widths])
        self.dropout = nn.Dropout(dropout)

    def aggregate(self, x: Tensor, mask: Tensor | None) -> Features:
        place: Tensor | None = None
        reverse: Tensor | None = None
        if mask is not None:
            x, front, place = compact(x, mask)
            reverse = _reversal(front)
        # outside autocast: not every CPU supports an LSTM in bfloat16, and rounding errors accumulate in a recurrence
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(next(self.forward_layers.parameters()).dtype)
            for i, (ahead, back) in enumerate(zip(self.forward_layers, self.backward_layers, strict=True)):
                x = self.dropout(x) if i else x
                x = torch.cat([ahead(x)[0], _flip(back(_flip(x, reverse))[0], reverse)], dim=-1)
        x = x if place is None else take(x, place)
        return Features(tokens=x, pooled=masked_mean(x, mask))


def _reversal(mask: Tensor) -> Tensor:
    """Index (B, S) that reverses the first n (real) tokens and keeps the others; it is its own inverse."""
    place = torch.arange(mask.shape[1], device=mask.device)
    return torch.where(mask, mask.sum(dim=1, keepdim=True) - 1 - place, place)


def _flip(x: Tensor, reverse: Tensor | None) -> Tensor:
    return x.flip(1) if reverse is None else take(x, reverse)
