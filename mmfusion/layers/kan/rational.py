"""Rational functions."""

import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmfusion.layers.kan.group import GroupFunction, add_power_sums, blocks, horner, least_squares


class Rational(GroupFunction):
    """f(x) = P(t) / (1 + |A(t)|), A(0) = 0, with t = x scaled to [-1, 1] over the grid.

    The denominator never falls below one, so there is no pole. With A one degree below P the function grows linearly.
    (Group-Rational KAT, Yang & Wang 2024.)
    """

    def __init__(self, num_channels: int, num_groups: int, degree: int, grid_range: tuple[float, float]) -> None:
        super().__init__(num_channels, num_groups, grid_range)
        self.degree = degree
        self.numerator = nn.Parameter(torch.empty(num_groups, degree + 1))
        self.denominator = nn.Parameter(torch.empty(num_groups, degree - 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fit the function to SiLU."""
        numerator, denominator = _fit_rational(self.degree, self.low, self.high)
        self.numerator.copy_(numerator)
        self.denominator.copy_(denominator)

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        center, scale = (self.low + self.high) / 2, 2 / (self.high - self.low)
        # scale the few coefficients rather than every element
        powers = scale ** torch.arange(self.degree + 1, dtype=x.dtype, device=x.device)
        p = self.per_channel(self.numerator.to(x.dtype) * powers)
        a = self.per_channel(self.denominator.to(x.dtype) * powers[1 : self.degree])
        if torch.compiler.is_compiling():
            return _rational(_centered(x, center), p, a)
        return _Rational.apply(x, p, a, center)


def _centered(x: Tensor, center: float) -> Tensor:
    return x - center if center else x


def _polynomial(coefficients: Tensor, t: Tensor) -> Tensor:
    """Horner's rule with a polynomial per column: (degree + 1, D), (N, D) -> (N, D)."""
    value = coefficients[-1].expand_as(t)
    for k in range(len(coefficients) - 2, -1, -1):
        value = torch.addcmul(coefficients[k], value, t)
    return value


def _rational(t: Tensor, p: Tensor, a: Tensor) -> Tensor:
    """The rational function at t (N, D), with a numerator and a denominator per column."""
    return _polynomial(p, t) / (1 + (_polynomial(a, t) * t).abs())


class _Rational(torch.autograd.Function):
    """:func:`_rational` block by block, with its own backward; only the result is saved, as in the next layer."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: Tensor, a: Tensor, center: float) -> Tensor:
        y = torch.empty_like(x)
        for rows in blocks(x):
            y[rows] = _rational(_centered(x[rows], center), p, a)
        ctx.save_for_backward(x, p, a, y)
        ctx.center = center
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, p, a, y = ctx.saved_tensors
        p_slope = p[1:] * torch.arange(1, len(p), device=x.device, dtype=x.dtype).unsqueeze(1)
        inner_coefficients = torch.cat([torch.zeros_like(a[:1]), a])
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dp, da = torch.zeros_like(p), torch.zeros_like(a)
        for rows in blocks(x):
            t = _centered(x[rows], ctx.center)
            inner, inner_slope = horner(inner_coefficients, t)
            to_p = grad[rows] / (1 + inner.abs())
            to_a = (to_p * y[rows]).mul_(inner.sign_()).neg_()
            if dx is not None:
                torch.mul(to_p, _polynomial(p_slope, t), out=dx[rows]).addcmul_(to_a, inner_slope)
            add_power_sums(dp, to_p, t)
            add_power_sums(da, to_a.mul_(t), t)
        return dx, dp, da, None


@functools.cache
def _fit_rational(degree: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Numerator and denominator coefficients fitted to SiLU (Sanathanan & Koerner's iteration), A of even powers only.

    An even A does not change sign, so that the absolute value causes no kink in a new function.
    """
    t = torch.linspace(-1.25, 1.25, 512, dtype=torch.float64, device="cpu")
    target = F.silu((low + high) / 2 + t * (high - low) / 2)
    even = torch.arange(2, degree, 2, device="cpu")
    numerator, inner = t.unsqueeze(1) ** torch.arange(degree + 1, device="cpu"), t.unsqueeze(1) ** even
    denominator = torch.ones_like(t)
    for _ in range(20):
        design = torch.cat([numerator, -target.unsqueeze(1) * inner], dim=1)
        solution = least_squares(design / denominator.unsqueeze(1), target / denominator)
        denominator = 1 + (inner @ solution[degree + 1 :]).abs()
    all_powers = t.new_zeros(degree - 1)
    all_powers[even - 1] = solution[degree + 1 :]
    return solution[: degree + 1], all_powers
