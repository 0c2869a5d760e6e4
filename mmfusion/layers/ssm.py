"""Selective state space models (Mamba, Gu & Dao 2023)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.layers.precision import at_least_float32
from mmfusion.layers.scan import selective_scan
from mmfusion.layers.sequence import compact, take


class SelectiveSSM(nn.Module):
    """Selective state space layer: step size, input and output matrix depend on the token (Gu & Dao 2023, algorithm 2).

    x_{t+1} = A x_t + B u_t, y_t = C x_t + D u_t with [r, B, C] = W u, delta = softplus(W_d r + b) and a diagonal A < 0,
    discretized as exp(delta A) and delta B. Time and memory are O(L) instead of attention's O(L^2).

    Args:
        dim: Number of channels D, each with its own state.
        d_state: Size N of the state.
        dt_rank: Width of r; None uses D / 16, rounded up.
        bidirectional: Add a second scan with its own parameters, from the last token to the first.
    """

    def __init__(self, dim: int, d_state: int = 16, dt_rank: int | None = None, bidirectional: bool = False) -> None:
        super().__init__()
        if dim < 1 or d_state < 1:
            raise ValueError(f"dim={dim} and d_state={d_state} must be at least 1.")
        self.d_state = d_state
        self.dt_rank = math.ceil(dim / 16) if dt_rank is None else dt_rank
        self.x_proj = nn.Linear(dim, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, dim)
        self.A_log = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(dim, 1))
        self.D = nn.Parameter(torch.ones(dim))
        self.reverse = SelectiveSSM(dim, d_state, dt_rank) if bidirectional else None
        self._reset_step_size()

    def _reset_step_size(self) -> None:
        """Initialize the step sizes log-uniformly in [0.001, 0.1]."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        delta = torch.empty_like(self.dt_proj.bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        with torch.no_grad():
            self.dt_proj.bias.copy_(delta + (-torch.expm1(-delta)).log())

    def no_weight_decay(self) -> set[str]:
        """Names of parameters without weight decay, as in Mamba.

        Weight decay of ``A_log`` would pull all states toward one time constant.
        """
        return {"A_log", "D"}

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scan a sequence.

        Args:
            x: (B, L, D).
            mask: (B, L) bool, True for valid tokens, which may be anywhere. Other tokens leave the state unchanged, and
                their outputs are undefined.

        Returns:
            (B, L, D).
        """
        r, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.softplus(at_least_float32(self.dt_proj(r)))
        if mask is not None:
            delta = delta.masked_fill(~mask.unsqueeze(-1), 0)
        y = selective_scan(x, delta, -self.A_log.exp(), B, C) + x * self.D
        if self.reverse is not None:
            y = y + self.reverse(x.flip(1), None if mask is None else mask.flip(1)).flip(1)
        return y


class MambaBlock(nn.Module):
    """Norm - projection to content and gate - short depthwise convolution - SiLU - selective scan - gate - projection.

    x + W_o (SiLU(z) * SSM(SiLU(conv(v)))) with [v, z] = W_i norm(x) (Gu & Dao 2023, figure 3). The convolution is
    causal, or centered if the scan is bidirectional.

    Args:
        dim: D.
        d_state: Size N of the state.
        expand: Inner width, relative to D. Mamba uses 2; 1 suits small data.
        kernel_size: Length of the convolution, odd.
        bidirectional: Scan in both directions.
        dropout: Dropout before the sum with x.
    """

    def __init__(
        self,
        dim: int,
        d_state: int = 16,
        expand: int = 1,
        kernel_size: int = 3,
        bidirectional: bool = False,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size={kernel_size} is not a positive odd number.")
        inner = expand * dim
        self.padding = (kernel_size // 2, kernel_size // 2) if bidirectional else (kernel_size - 1, 0)
        self.norm = nn.LayerNorm(dim)
        self.in_proj = nn.Linear(dim, 2 * inner)
        self.conv = nn.Conv1d(inner, inner, kernel_size, groups=inner)
        self.ssm = SelectiveSSM(inner, d_state, bidirectional=bidirectional)
        self.out_proj = nn.Linear(inner, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, L, D), mask (B, L) bool with the real tokens first -> (B, L, D)."""
        v, z = self.in_proj(self.norm(x)).chunk(2, dim=-1)
        if mask is not None:
            v = v.masked_fill(~mask.unsqueeze(-1), 0)
        v = F.silu(self.conv(F.pad(v.transpose(1, 2), self.padding)).transpose(1, 2))
        return x + self.dropout(self.out_proj(F.silu(z) * self.ssm(v, mask)))


class SSMEncoder(nn.Module):
    """Mamba blocks over sequences with gaps.

    Absent tokens are skipped, wherever they are: neither their content nor their number affects the result.

    Args:
        dim: D.
        num_layers: Number of blocks.
        d_state: Size N of the state.
        expand: Inner width, relative to D.
        bidirectional: Scan in both directions.
        dropout: Dropout of each block.
    """

    def __init__(
        self,
        dim: int,
        num_layers: int = 1,
        d_state: int = 16,
        expand: int = 1,
        bidirectional: bool = True,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [MambaBlock(dim, d_state, expand, bidirectional=bidirectional, dropout=dropout) for _ in range(num_layers)]
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (B, L, D), mask (B, L) bool with valid tokens anywhere -> (B, L, D); outputs at masked positions are
        undefined.
        """
        place: Tensor | None = None
        if mask is not None:
            x, mask, place = compact(x, mask)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return x if place is None else take(x, place)
