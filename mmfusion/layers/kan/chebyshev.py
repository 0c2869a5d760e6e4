"""Chebyshev polynomials."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mmfusion.layers.kan.group import add_power_sums, blocks, horner
from mmfusion.layers.kan.piecewise import PiecewisePolynomial


class Chebyshev(PiecewisePolynomial):
    """Sum of Chebyshev polynomials over the whole grid; linear beyond it.

    With one interval there is no lookup: every element of a channel uses the same polynomial.

    Args:
        degree: Degree of the last polynomial.
    """

    def __init__(self, num_channels: int, num_groups: int, degree: int, grid_range: tuple[float, float]) -> None:
        super().__init__(num_channels, num_groups, chebyshev_pieces(degree), grid_range)

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        # products and sums, not a matrix product, which autocast would round
        polynomials = (self.coefficients.to(x.dtype)[:, None] * self.pieces[1].to(x.dtype)).sum(-1)
        polynomials = self.per_channel(polynomials)
        center, reach = (self.low + self.high) / 2, (self.high - self.low) / 2
        if torch.compiler.is_compiling():
            return _clamped(x - center, polynomials, reach)[0]
        return _Clamped.apply(x, polynomials, center, reach)


def _clamped(u: Tensor, polynomials: Tensor, reach: float) -> tuple[Tensor, Tensor]:
    """Value and slope at u (N, D) of a polynomial per column, continued linearly beyond -reach, reach."""
    inside = u.clamp(-reach, reach)
    value, slope = horner(polynomials, inside)
    return torch.addcmul(value, slope, u - inside), slope


class _Clamped(torch.autograd.Function):
    """:func:`_clamped` block by block; the slope is saved in the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, polynomials: Tensor, center: float, reach: float) -> Tensor:
        y, slope = torch.empty_like(x), torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for rows in blocks(x):
            y[rows], block_slope = _clamped(x[rows] - center, polynomials, reach)
            if slope is not None:
                slope[rows] = block_slope
        ctx.save_for_backward(x, slope)
        ctx.grid, ctx.powers = (center, reach), len(polynomials)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, slope = ctx.saved_tensors
        center, reach = ctx.grid
        sums = x.new_zeros(ctx.powers, x.shape[1])
        tangents = x.new_zeros(ctx.powers - 1, x.shape[1])
        for rows in blocks(x):
            u = x[rows] - center
            inside = u.clamp(-reach, reach)
            add_power_sums(tangents, u.sub_(inside).mul_(grad[rows]), inside)
            add_power_sums(sums, grad[rows].clone(), inside)
        orders = torch.arange(1, ctx.powers, device=x.device, dtype=x.dtype).unsqueeze(1)
        sums[1:].addcmul_(tangents, orders)
        return None if slope is None else slope * grad, sums, None, None


def chebyshev_pieces(degree: int) -> np.ndarray:
    """Chebyshev polynomials T_0 ... T_degree of 2u, (1, degree + 1, degree + 1)."""
    pieces = np.zeros((1, degree + 1, degree + 1))
    for k in range(degree + 1):
        series = np.polynomial.Chebyshev.basis(k, domain=[-0.5, 0.5])
        pieces[0, : k + 1, k] = series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef
    return pieces
