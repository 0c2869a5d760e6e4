"""The selective scan in plain torch, with a backward pass of its own (Mamba, Gu & Dao 2023)."""

import functools
import importlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmfusion.layers.precision import at_least_float32

#: elements of the states held at a time: 1 MiB in float32, which fits into the cache of a core.
CHUNK_ELEMENTS = 2**18


def selective_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The linear recurrence h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, y_t = C_t h_t, from h = 0.

    Time and memory grow linearly with L. A custom backward pass keeps one state per chunk of steps and recomputes the
    others. Half-precision inputs are computed in float32. If ``mamba_ssm`` is installed, its kernel is used on CUDA.

    Args:
        u: (B, L, D) input.
        delta: (B, L, D) step sizes, at least 0; a step of 0 leaves the state unchanged.
        A: (D, N) diagonal of the state matrix, negative.
        B: (B, L, N) input matrix.
        C: (B, L, N) output matrix.

    Returns:
        y (B, L, D) in the type of u.
    """
    dtype = u.dtype
    if torch.compiler.is_exporting():  # without autocast, whose context would be part of the program
        return _exportable_scan(*(at_least_float32(x) for x in (u, delta, A, B, C))).to(dtype)
    with torch.autocast(u.device.type, enabled=False):
        u, delta, A, B, C = (at_least_float32(x) for x in (u, delta, A, B, C))
        if u.is_cuda and (kernel := _fused_kernel()) is not None:
            y = _fused_scan(kernel, u, delta, A, B, C)
        else:
            u, delta, B, C = (x.transpose(0, 1).contiguous() for x in (u, delta, B, C))
            y = _SelectiveScan.apply(u, delta, A.T.contiguous(), B, C).transpose(0, 1)
    return y.to(dtype)


@functools.cache
def _fused_kernel() -> Callable[..., Any] | None:
    """``selective_scan_fn`` of mamba_ssm, or None if it is not installed or cannot be loaded."""
    try:
        return importlib.import_module("mamba_ssm.ops.selective_scan_interface").selective_scan_fn
    except (ImportError, OSError, RuntimeError):
        return None


def _fused_scan(kernel: Callable[..., Any], u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Call mamba_ssm's kernel, which expects time as the last dimension: (B, D, L) and (B, N, L)."""
    u, delta, B, C = (x.transpose(1, 2).contiguous() for x in (u, delta, B, C))
    return kernel(u, delta, A.contiguous(), B, C).transpose(1, 2)


def _exportable_scan(u: Tensor, delta: Tensor, A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """The recurrence with torch's scan operator, which ONNX supports and which keeps L dynamic in exported programs."""
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
    torch.mul(delta.unsqueeze(2), A / math.log(2), out=decay).exp2_()  # exp takes twice as long as exp2 on a CPU
    torch.mul(drive.unsqueeze(2), B.unsqueeze(3), out=states)
    state = start
    for decay_t, state_t in zip(decay.unbind(), states.unbind(), strict=True):
        state = state_t.addcmul_(decay_t, state)
    return state


class _SelectiveScan(torch.autograd.Function):
    """The scan over time-major tensors: u, delta (L, B, D), A (N, D), B, C (L, B, N) -> (L, B, D).

    D is the last dimension because products with a broadcast factor run over the last axis, and N is small. With g_t
    the gradient of the loss with respect to h_t and a_t = exp(delta_t A), the backward recurrence is
    g_t = C_t dy_t + a_{t+1} g_{t+1}.
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
            # row vector times matrix; as matrix times column vector the same product takes four times as long
            torch.matmul(grad_y[t].unsqueeze(2), h.transpose(2, 3), out=grad_C[t].unsqueeze(2))
            torch.mul(grad_y[t].unsqueeze(2), C[t].unsqueeze(3), out=g)
            after = carried
            for a_t, g_t in zip(reversed(a.unbind()), reversed(g.unbind()), strict=True):
                after = a_t.mul_(g_t.add_(after))
            carried.copy_(after)
            torch.matmul(drive[t].unsqueeze(2), g.transpose(2, 3), out=grad_B[t].unsqueeze(2))
            torch.matmul(B[t].unsqueeze(2), g, out=grad_drive[t].unsqueeze(2))
            # a now holds a_t g_t; times h_{t-1} it is the gradient with respect to the exponent delta_t A
            a[1:].mul_(h[:-1])
            a[0].mul_(starts[i])
            for exponent_t, delta_t in zip(a.unbind(), delta[t].unbind(), strict=True):
                grad_A.addcmul_(exponent_t, delta_t.unsqueeze(1))
            torch.sum(torch.mul(a, A, out=g), dim=2, out=grad_delta[t])
        grad_delta.addcmul_(grad_drive, u)
        return grad_drive.mul_(delta), grad_delta, grad_A.sum(0), grad_B, grad_C
