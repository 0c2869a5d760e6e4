"""Attention over token sequences with a padding mask."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.layers.mlp import Mlp


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, scale: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scaled dot-product attention that also returns its weights: softmax(Q K^T / sqrt(d)) V (Vaswani et al. 2017).

    Args:
        query: (B, H, Q, d).
        key: (B, H, K, d).
        value: (B, H, K, d).
        mask: (B, K) bool, True for valid keys; every row needs at least one.
        scale: (H,) factor of each head's scores; None divides them by sqrt(d).

    Returns:
        Output (B, H, Q, d) and weights (B, H, Q, K); a masked key has weight 0.
    """
    scores = query @ key.transpose(-2, -1)
    scores = scores / math.sqrt(query.shape[-1]) if scale is None else scores * scale[:, None, None].to(scores.dtype)
    if mask is not None:
        scores = scores.masked_fill(~mask[:, None, None, :], torch.finfo(scores.dtype).min)
    weights = scores.softmax(dim=-1)
    return weights.to(value.dtype) @ value, weights


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(B, N, D) -> (B, heads, N, D / heads)."""
    return x.unflatten(-1, (num_heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """(B, heads, N, d) -> (B, N, heads * d)."""
    return x.transpose(1, 2).flatten(2)


def check_heads(dim: int, num_heads: int) -> None:
    """Raise ValueError unless the heads divide the width."""
    if num_heads < 1 or dim % num_heads:
        raise ValueError(f"dim={dim} is not divisible by num_heads={num_heads}; choose a divisor of dim.")


class CrossAttention(nn.Module):
    """Multi-head attention with queries from one sequence, keys and values from another (Vaswani et al. 2017).

    Args:
        dim: Width of both sequences.
        num_heads: Number of attention heads; divides ``dim``.
    """

    def __init__(self, dim: int, num_heads: int = 8) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Attend from x (B, Q, D) to context (B, K, D) with its mask (B, K): (B, Q, D) and weights (B, heads, Q, K)."""
        q, k, v = (split_heads(t, self.num_heads) for t in (self.q(x), self.k(context), self.v(context)))
        attended, weights = attend(q, k, v, mask)
        return self.out(merge_heads(attended)), weights


class CrossAttentionLayer(nn.Module):
    """Pre-norm transformer layer whose attention reads another sequence (or its own, given as the context).

    Args:
        dim: Width.
        num_heads: Number of attention heads.
        mlp_ratio: Hidden width of the feed-forward network, relative to ``dim``.
        dropout: Dropout after the attention and after the feed-forward network.
    """

    def __init__(self, dim: int, num_heads: int = 8, mlp_ratio: float = 2.0, dropout: float = 0.1) -> None:
        super().__init__()
        self.norm_query = nn.LayerNorm(dim)
        self.norm_context = nn.LayerNorm(dim)
        self.attention = CrossAttention(dim, num_heads)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), dim, dropout=dropout, activation=nn.GELU)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, context: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """x (B, Q, D), context (B, K, D), its mask (B, K) -> (B, Q, D) and weights (B, heads, Q, K)."""
        attended, weights = self.attention(self.norm_query(x), self.norm_context(context), mask)
        x = x + self.dropout(attended)
        return x + self.dropout(self.mlp(self.norm_mlp(x))), weights


class JointAttention(nn.Module):
    """One direction of MIBF-Net's IBFA: the query from one side attends to the keys and values of both sides.

    Q = W_q x, K = [W_k x; W_k' y], V = [W_v x; W_v' y], out(softmax(Q K^T / sqrt(d)) V).

    Args:
        dim: Width of both sides (768 in the publication).
        num_heads: Attention heads (1 in the publication).
        max_logit: Upper bound of the scores. If given, the attention is a cosine attention, softmax(s cos(Q, K)), with
            a learned scale s per head: ``max_logit`` times a sigmoid, initially half of ``max_logit``. Each of N + M
            keys then has a weight of at least exp(-2 max_logit) / (N + M). None is the published attention with
            unbounded scores.

    Raises:
        ValueError: ``num_heads`` does not divide ``dim``, or ``max_logit`` is not positive.
    """

    def __init__(self, dim: int, num_heads: int = 1, max_logit: float | None = None) -> None:
        super().__init__()
        check_heads(dim, num_heads)
        if max_logit is not None and not 0 < max_logit < math.inf:
            raise ValueError(f"max_logit={max_logit} is not a positive number; None leaves the scores unbounded.")
        self.num_heads, self.max_logit = num_heads, max_logit
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.k_other = nn.Linear(dim, dim)
        self.v_other = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        # one dimension, so that it has no weight decay
        self.logit_scale = None if max_logit is None else nn.Parameter(torch.zeros(num_heads))

    def forward(
        self, x: Tensor, y: Tensor, x_mask: Tensor | None = None, y_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend from x to [x; y].

        Args:
            x: (B, N, D) or one vector per sample (B, D).
            y: (B, M, D) or (B, D).
            x_mask: (B, N) bool, True = real token.
            y_mask: (B, M) bool.

        Returns:
            Output shaped like x, and weights (B, heads, N, N + M), own side first.
        """
        if x.ndim == 2 or y.ndim == 2:
            out, weights = self.forward(
                x if x.ndim == 3 else x[:, None], y if y.ndim == 3 else y[:, None], x_mask, y_mask
            )
            return (out.squeeze(1) if x.ndim == 2 else out), weights
        q = split_heads(self.q(x), self.num_heads)
        k = split_heads(torch.cat([self.k(x), self.k_other(y)], dim=1), self.num_heads)
        v = split_heads(torch.cat([self.v(x), self.v_other(y)], dim=1), self.num_heads)
        scale = None
        if self.max_logit is not None and self.logit_scale is not None:
            q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)
            scale = self.max_logit * self.logit_scale.sigmoid()
        attended, weights = attend(q, k, v, join_masks(x, x_mask, y, y_mask), scale)
        return self.out(merge_heads(attended)), weights


def join_masks(x: Tensor, x_mask: Tensor | None, y: Tensor, y_mask: Tensor | None) -> Tensor | None:
    """Mask (B, N + M) of the joined sequence [x; y]; None if all tokens of both are real."""
    if x_mask is None and y_mask is None:
        return None
    x_mask = x.new_ones(x.shape[:2], dtype=torch.bool) if x_mask is None else x_mask
    y_mask = y.new_ones(y.shape[:2], dtype=torch.bool) if y_mask is None else y_mask
    return torch.cat([x_mask, y_mask], dim=1)
