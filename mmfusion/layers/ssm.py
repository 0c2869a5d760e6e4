"""Selective state space models in plain torch (report eq. 27-28; Mamba, Gu & Dao 2023)."""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.layers.sequence import compact, take

#: elements of the states held at a time: 1 MiB in float32, which stays in the cache of a core.
CHUNK_ELEMENTS = 2**18


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The linear recurrence h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t, from h = 0.

    Time and memory grow linearly with L. The backward pass is its own: it keeps one state per chunk of steps and
    computes the others again. Below float32 the scan runs in float32. Where ``mamba_ssm`` is installed, its kernel
    takes tensors on CUDA.

    Args:
        u: (B, L, D) input.
        delta: (B, L, D) step sizes, at least 0; a step of 0 leaves the state as it is.
        A: (D, N) diagonal of the state matrix, negative.
        B: (B, L, N) input matrix.
        C: (B, L, N) output matrix.

    Returns:
        y (B, L, D) in the type of u.
    """
    dtype = u.dtype
    if torch.compiler.is_exporting():  # without autocast, whose context would be part of the program
        return _exportable_scan(*(_at_least_float32(x) for x in (u, delta, A, B, C))).to(dtype)
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C = (_at_least_float32(x) for x in (u, delta, A, B, C))
        if u.is_cuda and (kernel := _fused_kernel()) is not None:
            y = _fused_scan(kernel, u, delta, A, B, C)
        else:
            u, delta, B, C = (x.transpose(0, 1).contiguous() for x in (u, delta, B, C))
            y = _SelectiveScan.apply(u, delta, A.T.contiguous(), B, C).transpose(0, 1)
    return y.to(dtype)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


@functools.cache
def _fused_kernel() -> Callable[..., Any] | None:
    """``selective_scan_fn`` of mamba_ssm, or None where it is not installed or does not load."""
    try:
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except (ImportError, OSError, RuntimeError):
        return None


def _fused_scan(kernel: Callable[..., Any], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Call mamba_ssm's kernel, which has time last: (B, D, L) and (B, N, L)."""
    u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
    return kernel(u, delta, A.contiguous(), B, C).transpose(1, 2)


def _exportable_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The recurrence as torch's scan operator, which keeps L dynamic in an exported program and which ONNX knows."""
    from torch._higher_order_ops import scan  # loads the compiler

    def step(state: Tensor, inputs: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        u_t, delta_t, B_t, C_t = inputs
        state = torch.exp(delta_t.unsqueeze(2) * A) * state + (delta_t * u_t).unsqueeze(2) * B_t.unsqueeze(1)
        return state, (state @ C_t.unsqueeze(2)).squeeze(2)

    start = u.new_zeros(u.shape[0], *A.shape)
    _, y = scan(step, start, tuple(x.transpose(0, 1) for x in (u, delta, B, C)))
    return y.transpose(0, 1)


def _fill_states(
    delta: Tensor, drive: Tensor, A: Tensor, B: Tensor, start: Tensor, decay: Tensor, states: Tensor
) -> Tensor:
    """Write a chunk's decays exp(delta A) and states (T, B, N, D), from the state before it; returns the last state."""
    torch.mul(delta.unsqueeze(2), A, out=decay).exp_()
    torch.mul(drive.unsqueeze(2), B.unsqueeze(3), out=states)
    state = start
    for decay_t, state_t in zip(decay.unbind(), states.unbind(), strict=True):
        state = state_t.addcmul_(decay_t, state)
    return state


class _SelectiveScan(torch.autograd.Function):
    """The scan over time-major tensors: u, delta (L, B, D), A (N, D), B, C (L, B, N) -> (L, B, D).

    D stands last because products with a broadcast factor run over the last axis, and N is short. With g_t the gradient
    of the loss to h_t and a_t = exp(delta_t A), the backward recurrence is g_t = C_t dy_t + a_{t+1} g_{t+1}.
    """

    @staticmethod
    def forward(ctx: Any, u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
        length, batch, dim = u.shape
        state_shape = (batch, A.shape[0], dim)
        chunk = min(length, max(1, CHUNK_ELEMENTS // math.prod(state_shape)))
        starts = u.new_zeros(math.ceil(length / chunk), *state_shape)
        decay, states = u.new_empty(chunk, *state_shape), u.new_empty(chunk, *state_shape)
        drive = delta * u
        y = torch.empty_like(u)
        for i, start in enumerate(starts):
            t = slice(i * chunk, min((i + 1) * chunk, length))
            n = t.stop - t.start
            last = _fill_states(delta[t], drive[t], A, B[t], start, decay[:n], states[:n])
            torch.matmul(C[t].unsqueeze(2), states[:n], out=y[t].unsqueeze(2))
            if i + 1 < len(starts):
                starts[i + 1] = last
        ctx.save_for_backward(u, delta, A, B, C, starts)
        ctx.chunk = chunk
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        u, delta, A, B, C, starts = ctx.saved_tensors
        chunk, length = ctx.chunk, len(u)
        drive, grad_y = delta * u, grad_y.contiguous()
        decay, states, grads = (u.new_empty(chunk, *starts.shape[1:]) for _ in range(3))
        grad_drive, grad_delta, grad_B, grad_C = (torch.empty_like(x) for x in (u, delta, B, C))
        grad_A, carried = torch.zeros_like(starts[0]), torch.zeros_like(starts[0])
        for i in reversed(range(len(starts))):
            t = slice(i * chunk, min((i + 1) * chunk, length))
            n = t.stop - t.start
            a, h, g = decay[:n], states[:n], grads[:n]
            _fill_states(delta[t], drive[t], A, B[t], starts[i], a, h)
            torch.matmul(h, grad_y[t].unsqueeze(3), out=grad_C[t].unsqueeze(3))
            torch.mul(grad_y[t].unsqueeze(2), C[t].unsqueeze(3), out=g)
            after = carried
            for a_t, g_t in zip(reversed(a.unbind()), reversed(g.unbind()), strict=True):
                after = a_t.mul_(g_t.add_(after))
            carried.copy_(after)
            torch.matmul(g, drive[t].unsqueeze(3), out=grad_B[t].unsqueeze(3))
            torch.matmul(B[t].unsqueeze(2), g, out=grad_drive[t].unsqueeze(2))
            # a now holds a_t g_t; times h_{t-1} it is the gradient to the exponent delta_t A
            a[1:].mul_(h[:-1])
            a[0].mul_(starts[i])
            for exponent_t, delta_t in zip(a.unbind(), delta[t].unbind(), strict=True):
                grad_A.addcmul_(exponent_t, delta_t.unsqueeze(1))
            torch.sum(torch.mul(a, A, out=g), dim=2, out=grad_delta[t])
        grad_delta.addcmul_(grad_drive, u)
        return grad_drive.mul_(delta), grad_delta, grad_A.sum(0), grad_B, grad_C


class SelectiveSSM(nn.Module):
    """Selective state space layer: step size, input and output matrix depend on the token (Gu & Dao 2023, algorithm 2).

    Report eq. 27, x_{t+1} = A x_t + B u_t, y_t = C x_t, with [r, B, C] = W u, delta = softplus(W_d r + b), a diagonal
    A < 0, discretised as exp(delta A) and delta B, and a skip D u. It replaces attention's O(L^2) by O(L).

    Args:
        dim: D, channels; each has a state of its own.
        d_state: N, size of the state.
        dt_rank: width of r; None takes D / 16, rounded up.
        bidirectional: add a second scan, with parameters of its own, from the last token to the first.
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
        """Initial step sizes spread over [0.001, 0.1], evenly in the logarithm."""
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        delta = torch.empty_like(self.dt_proj.bias).uniform_(math.log(1e-3), math.log(1e-1)).exp()
        with torch.no_grad():
            self.dt_proj.bias.copy_(delta + (-torch.expm1(-delta)).log())

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that an optimiser should not decay, as in Mamba.

        Decay of ``A_log`` would draw all states to one time constant.
        """
        return {"A_log", "D"}

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Scan a sequence.

        Args:
            x: (B, L, D).
            mask: (B, L) bool, True where a token is real. The others leave the state as it is, wherever they stand, and
                their output means nothing.

        Returns:
            (B, L, D).
        """
        r, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        delta = F.softplus(_at_least_float32(self.dt_proj(r)))
        if mask is not None:
            delta = delta.masked_fill(~mask.unsqueeze(-1), 0)
        y = selective_scan(x, delta, -self.A_log.exp(), B, C) + x * self.D
        if self.reverse is not None:
            y = y + self.reverse(x.flip(1), None if mask is None else mask.flip(1)).flip(1)
        return y


class MambaBlock(nn.Module):
    """Norm - projection to content and gate - short depthwise convolution - SiLU - selective scan - gate - projection.

    x + W_o (SiLU(z) * SSM(SiLU(conv(v)))) with [v, z] = W_i norm(x) (Gu & Dao 2023, figure 3). The convolution looks
    back in one direction, and to both neighbours when the scan runs both ways.

    Args:
        dim: D.
        d_state: N, size of the state.
        expand: inner width over D. Mamba has 2; 1 suits small data.
        kernel_size: length of the convolution, odd.
        bidirectional: scan both ways.
        dropout: before the sum with x.
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

    Absent tokens, wherever they stand, are skipped: neither their content nor their number changes a result.

    Args:
        dim: D.
        num_layers: blocks.
        d_state: N, size of the state.
        expand: inner width over D.
        bidirectional: scan both ways.
        dropout: of each block.
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
        """x (B, L, D), mask (B, L) bool, True anywhere -> (B, L, D); what stands at absent places means nothing."""
        place: Tensor | None = None
        if mask is not None:
            x, mask, place = compact(x, mask)
        for block in self.blocks:
            x = block(x, mask)
        x = self.norm(x)
        return x if place is None else take(x, place)
