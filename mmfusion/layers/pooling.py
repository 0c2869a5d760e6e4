"""Pooling of token sequences with a padding mask."""

from __future__ import annotations

from torch import Tensor


def masked_mean(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the real tokens: (B, N, D), mask (B, N) bool -> (B, D). A row without real tokens gives zeros."""
    if mask is None:
        return tokens.mean(dim=1)
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
