"""Kolmogorov-Arnold layers whose univariate function is shared by a group of channels (report eq. 3-4).

Every basis but the radial one is evaluated once per input element, in blocks of rows that stay in the processor's
cache, with a backward of its own that keeps at most the input and the slope: that is what makes such a layer cost
little more than a Linear.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

#: elements worked on at a time: a block and its intermediate results fit into a core's cache.
BLOCK = 2**16


def bspline_basis(x: Tensor, knots: Tensor, degree: int) -> Tensor:
    """B-spline basis functions by the recursion of Cox and de Boor.

    Args:
        x: (...).
        knots: (K,), non-decreasing; repeated knots are allowed.
        degree: of the polynomials, at least 0.

    Returns:
        (..., K - degree - 1): the value of each basis function, zero outside its support. At the end of the base
        interval (``knots[-degree - 1]``) the value is the limit from the left, as in scipy.

    Raises:
        ValueError: there are too few knots for one basis function.
    """
    count = len(knots) - degree - 1
    if degree < 0 or count < 1:
        raise ValueError(f"{len(knots)} knots are too few for a B-spline of degree={degree}; it takes {degree + 2}.")
    knots = knots.to(x)
    points = x.detach().contiguous()
    left, right = torch.searchsorted(knots, points), torch.searchsorted(knots, points, right=True)
    interval = torch.where(points == knots[count], left, right) - 1
    x = x.unsqueeze(-1)
    basis = (interval.unsqueeze(-1) == torch.arange(len(knots) - 1, device=x.device)).to(x.dtype)
    for d in range(1, degree + 1):
        width = knots[d:] - knots[:-d]
        slope = torch.where(width > 0, 1 / width.where(width > 0, 1), 0)  # a repeated knot contributes nothing
        rising = (x - knots[: -d - 1]) * slope[:-1] * basis[..., :-1]
        falling = (knots[d + 1 :] - x) * slope[1:] * basis[..., 1:]
        basis = rising + falling
    return basis


class GroupFunction(nn.Module):
    """A learnable univariate function per group of channels, applied to every channel of the group.

    Channels are dealt out in order: channel j belongs to group ``j * num_groups // num_channels``. A fresh function is
    the least-squares fit to SiLU over the grid.

    Args:
        num_channels: D.
        num_groups: functions, at most D.
        grid_range: interval that the function resolves; beyond it, it goes on without a bound or a dead end.
    """

    def __init__(self, num_channels: int, num_groups: int, grid_range: tuple[float, float]) -> None:
        super().__init__()
        low, high = grid_range
        if not 1 <= num_groups <= num_channels:
            raise ValueError(f"num_groups={num_groups} is not between 1 and the number of channels, {num_channels}.")
        if not low < high:
            raise ValueError(f"grid_range={grid_range} is not an interval.")
        self.num_channels, self.num_groups = num_channels, num_groups
        self.low, self.high = float(low), float(high)

    def groups(self, device: torch.device) -> Tensor:
        """Group of each channel, (D,) int64."""
        return torch.arange(self.num_channels, device=device) * self.num_groups // self.num_channels

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) of at least single precision -> (N, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D); half precision is computed in single."""
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        return self.evaluate(precise.reshape(-1, self.num_channels)).view(x.shape).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, num_groups={self.num_groups}, grid_range=({self.low:g}, {self.high:g})"


class PiecewisePolynomial(GroupFunction):
    """f(x) = sum_k w_k B_k(x) for a basis of piecewise polynomials on equal intervals; linear beyond the grid.

    The coefficients are turned into one polynomial per interval, a small matrix product; an element then takes its
    interval's polynomial and Horner's rule, whatever the number of basis functions.

    Args:
        num_channels: D.
        num_groups: functions.
        pieces: (intervals, degree + 1, basis functions): the basis as polynomials, lowest power first, of the position
            within the interval, from -1/2 to 1/2.
        grid_range: ends of the grid.
    """

    pieces: Tensor

    def __init__(self, num_channels: int, num_groups: int, pieces: np.ndarray, grid_range: tuple[float, float]) -> None:
        super().__init__(num_channels, num_groups, grid_range)
        self.grid = Grid(self.low, self.high, len(pieces))
        in_units_of_x = _extend(pieces) / self.grid.step ** np.arange(pieces.shape[1])[:, None]
        self.register_buffer("pieces", torch.from_numpy(in_units_of_x).float(), persistent=False)
        self.coefficients = nn.Parameter(torch.empty(num_groups, pieces.shape[2]))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The fit to SiLU."""
        step = self.grid.step
        x = torch.linspace(self.low - step, self.high + step, 512, dtype=torch.float64, device="cpu")
        u, interval = self.grid.locate(x)
        powers = u.unsqueeze(1) ** torch.arange(self.pieces.shape[1], device="cpu")
        design = torch.einsum("np,npb->nb", powers, self.pieces.double().cpu()[interval])
        self.coefficients.copy_(_least_squares(design, F.silu(x)))

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        # products and sums, not a matrix product, which autocast would round
        polynomials = (self.coefficients.to(x.dtype)[:, None, None] * self.pieces.to(x.dtype)).sum(-1)
        polynomials = polynomials.permute(2, 0, 1).flatten(1)
        first = self.groups(x.device) * len(self.pieces)
        if torch.compiler.is_compiling():
            u, interval = self.grid.locate(x)
            return _horner(polynomials, u, interval + first)[0]
        return _Piecewise.apply(x, polynomials, first, self.grid)


class Grid(NamedTuple):
    """Equal intervals, and one more on either side that goes on for ever."""

    low: float
    high: float
    intervals: int

    @property
    def step(self) -> float:
        """Length of an interval."""
        return (self.high - self.low) / self.intervals

    def locate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Distance from the middle of x's interval, and its number, int64; NaN stays NaN, in some interval."""
        interval = (x - self.low).mul_(1 / self.step).floor_().clamp_(-1, self.intervals)
        u = torch.sub(x, interval, alpha=self.step).sub_(self.low + self.step / 2)
        return u, interval.add_(1).nan_to_num_(nan=0.0).to(torch.int64)


def _extend(pieces: np.ndarray) -> np.ndarray:
    """Add an interval on either side, in which a function goes on along its tangent."""
    powers = np.arange(pieces.shape[1])
    tangents = []
    for piece, end in ((pieces[0], -0.5), (pieces[-1], 0.5)):
        value, slope = end**powers @ piece, powers[1:] * end ** powers[:-1] @ piece[1:]
        tangent = np.zeros_like(piece)
        tangent[0], tangent[1] = value + end * slope, slope
        tangents.append(tangent)
    return np.concatenate([tangents[:1], pieces, tangents[1:]])


def _horner(polynomials: Tensor, u: Tensor, column: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at u (N, D) of polynomials (degree + 1, columns), each element its own column."""
    rows = u.shape[0]
    slope = polynomials[-1].expand(rows, -1).gather(1, column)
    value = torch.addcmul(polynomials[-2].expand(rows, -1).gather(1, column), slope, u)
    for power in range(len(polynomials) - 3, -1, -1):
        slope = torch.addcmul(value, slope, u)
        value = torch.addcmul(polynomials[power].expand(rows, -1).gather(1, column), value, u)
    return value, slope


def _blocks(x: Tensor) -> Iterator[slice]:
    """Slices of rows, each of about ``BLOCK`` elements."""
    rows = max(1, BLOCK // x.shape[1])
    return (slice(start, start + rows) for start in range(0, len(x), rows))


class _Piecewise(torch.autograd.Function):
    """A polynomial per interval and group, block by block; the slope is kept from the forward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, polynomials: Tensor, first: Tensor, grid: Grid) -> Tensor:
        y, slope = torch.empty_like(x), torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for rows in _blocks(x):
            u, interval = grid.locate(x[rows])
            y[rows], block_slope = _horner(polynomials, u, interval.add_(first))
            if slope is not None:
                slope[rows] = block_slope
        ctx.save_for_backward(x, slope, first)
        ctx.grid, ctx.shape = grid, polynomials.shape
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, slope, first = ctx.saved_tensors
        powers, columns = ctx.shape
        dpolynomials = x.new_zeros(ctx.shape)
        for rows in _blocks(x):
            u, interval = ctx.grid.locate(x[rows])
            column, weight = interval.add_(first), grad[rows]
            sums = []
            for power in range(0, powers, 2):
                # two powers at a time, as one complex number: the scattered access is what costs.
                # One sum per row, then over rows: rows run in parallel, and single precision loses less.
                pair = torch.complex(weight, weight * u)
                table = pair.new_zeros(len(u), columns).scatter_add_(1, column, pair).sum(0)
                sums += [table.real, table.imag]
                if power + 2 < powers:
                    weight = (weight * u).mul_(u)
            dpolynomials += torch.stack(sums[:powers])
        return None if slope is None else slope * grad, dpolynomials, None, None


def _bspline_pieces(grid_size: int, degree: int) -> np.ndarray:
    """The uniform B-spline basis as polynomials per interval, (grid_size, degree + 1, grid_size + degree)."""
    device = torch.device("cpu")
    knots = torch.arange(-degree, grid_size + degree + 1, dtype=torch.float64, device=device)
    u = (torch.arange(degree + 1, dtype=torch.float64, device=device) + 0.5) / (degree + 1) - 0.5
    x = torch.arange(grid_size, dtype=torch.float64, device=device)[:, None] + 0.5 + u
    values = bspline_basis(x, knots, degree).numpy()
    return np.linalg.solve(np.vander(u.numpy(), increasing=True), values)


def _chebyshev_pieces(degree: int) -> np.ndarray:
    """Chebyshev polynomials T_0 ... T_degree of 2u, (1, degree + 1, degree + 1)."""
    pieces = np.zeros((1, degree + 1, degree + 1))
    for k in range(degree + 1):
        series = np.polynomial.Chebyshev.basis(k, domain=[-0.5, 0.5])
        pieces[0, : k + 1, k] = series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef
    return pieces


class Rational(GroupFunction):
    """f(x) = P(t) / (1 + |A(t)|), A(0) = 0, with t = x scaled to [-1, 1] over the grid.

    The denominator never falls below one, so there is no pole. With A one degree below P the function grows linearly.
    (Group-Rational KAT, Yang & Wang 2024.)

    Args:
        num_channels: D.
        num_groups: functions.
        degree: of P; A has one less.
        grid_range: interval mapped to [-1, 1].
    """

    def __init__(self, num_channels: int, num_groups: int, degree: int, grid_range: tuple[float, float]) -> None:
        super().__init__(num_channels, num_groups, grid_range)
        self.degree = degree
        self.numerator = nn.Parameter(torch.empty(num_groups, degree + 1))
        self.denominator = nn.Parameter(torch.empty(num_groups, degree - 1))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The fit to SiLU."""
        numerator, denominator = _fit_rational(self.degree, self.low, self.high)
        self.numerator.copy_(numerator)
        self.denominator.copy_(denominator)

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        group = self.groups(x.device)
        p, a = (w.to(x.dtype)[group].T.contiguous() for w in (self.numerator, self.denominator))
        center, scale = (self.low + self.high) / 2, 2 / (self.high - self.low)
        if torch.compiler.is_compiling():
            return _rational((x - center) * scale, p, a)[0]
        return _Rational.apply(x, p, a, center, scale)


def _polynomial(coefficients: Tensor, t: Tensor) -> Tensor:
    """Horner's rule with a polynomial per column: (degree + 1, D), (N, D) -> (N, D)."""
    value = coefficients[-1].expand_as(t)
    for k in range(len(coefficients) - 2, -1, -1):
        value = torch.addcmul(coefficients[k], value, t)
    return value


def _rational(t: Tensor, p: Tensor, a: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The function, its denominator, and A."""
    inner = _polynomial(a, t) * t
    denominator = 1 + inner.abs()
    return _polynomial(p, t) / denominator, denominator, inner


class _Rational(torch.autograd.Function):
    """:func:`_rational` block by block, with its own backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: Tensor, a: Tensor, center: float, scale: float) -> Tensor:
        ctx.save_for_backward(x, p, a)
        ctx.grid = center, scale
        y = torch.empty_like(x)
        for rows in _blocks(x):
            y[rows] = _rational((x[rows] - center) * scale, p, a)[0]
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, p, a = ctx.saved_tensors
        center, scale = ctx.grid
        orders = torch.arange(1, len(p), device=x.device, dtype=x.dtype).unsqueeze(1)
        p_slope, a_slope = p[1:] * orders, a * orders[: len(a)]
        dx = torch.empty_like(x) if ctx.needs_input_grad[0] else None
        dp, da = torch.zeros_like(p), torch.zeros_like(a)
        for rows in _blocks(x):
            t = (x[rows] - center) * scale
            y, denominator, inner = _rational(t, p, a)
            to_p = grad[rows] / denominator
            to_a = (to_p * y).mul_(inner.sign_()).neg_()
            if dx is not None:
                slope = torch.addcmul(to_p * _polynomial(p_slope, t), to_a, _polynomial(a_slope, t))
                torch.mul(slope, scale, out=dx[rows])
            for sums, weight in ((dp, to_p), (da, to_a.mul_(t))):
                for power in range(len(sums)):
                    sums[power] += weight.sum(0)
                    if power + 1 < len(sums):
                        weight = weight * t
        return dx, dp, da, None, None


class RadialBasis(GroupFunction):
    """f(x) = a + b x + sum_k w_k exp(-((x - c_k) / h)^2), centres c_k at the grid points, h their distance.

    (FastKAN, Li 2024, with a line added, which carries the function beyond the grid.)

    Args:
        num_channels: D.
        num_groups: functions.
        grid_size: intervals between the centres.
        grid_range: first and last centre.
    """

    def __init__(self, num_channels: int, num_groups: int, grid_size: int, grid_range: tuple[float, float]) -> None:
        super().__init__(num_channels, num_groups, grid_range)
        self.grid_size = grid_size
        self.coefficients = nn.Parameter(torch.empty(num_groups, grid_size + 3))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """The fit to SiLU."""
        step = (self.high - self.low) / self.grid_size
        x = torch.linspace(self.low - step, self.high + step, 512, dtype=torch.float64, device="cpu")
        self.coefficients.copy_(_least_squares(self.basis(x), F.silu(x)))

    def basis(self, x: Tensor) -> Tensor:
        """(...) -> (..., grid_size + 3)."""
        centers = torch.linspace(self.low, self.high, self.grid_size + 1, dtype=x.dtype, device=x.device)
        x = x.unsqueeze(-1)
        bumps = torch.exp(-((x - centers) * (self.grid_size / (self.high - self.low))).square())
        return torch.cat([torch.ones_like(x), x, bumps], dim=-1)

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return (self.basis(x) * self.coefficients.to(x.dtype)[self.groups(x.device)]).sum(-1)


def _least_squares(design: Tensor, target: Tensor) -> Tensor:
    return torch.linalg.lstsq(design, target.unsqueeze(1)).solution.squeeze(1)


@functools.cache
def _fit_rational(degree: int, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Numerator and denominator coefficients fitted to SiLU (Sanathanan & Koerner's iteration), A of even powers only.

    An even A has one sign, so that the absolute value puts no kink into a fresh function.
    """
    t = torch.linspace(-1.25, 1.25, 512, dtype=torch.float64, device="cpu")
    target = F.silu((low + high) / 2 + t * (high - low) / 2)
    even = torch.arange(2, degree, 2, device="cpu")
    numerator, inner = t.unsqueeze(1) ** torch.arange(degree + 1, device="cpu"), t.unsqueeze(1) ** even
    denominator = torch.ones_like(t)
    for _ in range(20):
        design = torch.cat([numerator, -target.unsqueeze(1) * inner], dim=1)
        solution = _least_squares(design / denominator.unsqueeze(1), target / denominator)
        denominator = 1 + (inner @ solution[degree + 1 :]).abs()
    all_powers = t.new_zeros(degree - 1)
    all_powers[even - 1] = solution[degree + 1 :]
    return solution[: degree + 1], all_powers


Basis = Literal["bspline", "rational", "rbf", "chebyshev"]


def _function(
    basis: str, channels: int, groups: int, grid_size: int, degree: int, grid_range: tuple[float, float]
) -> GroupFunction:
    match basis:
        case "bspline":
            return PiecewisePolynomial(channels, groups, _bspline_pieces(grid_size, degree), grid_range)
        case "chebyshev":
            return PiecewisePolynomial(channels, groups, _chebyshev_pieces(grid_size + degree - 1), grid_range)
        case "rational":
            return Rational(channels, groups, degree, grid_range)
        case "rbf":
            return RadialBasis(channels, groups, grid_size, grid_range)
    raise ValueError(f"basis={basis!r} is not one of {', '.join(map(repr, get_args(Basis)))}.")


class GroupKANLinear(nn.Linear):
    """y = W phi(x) + b, phi a learnable univariate function shared by a group of channels (report eq. 3-4).

    It takes the place of an ``nn.Linear`` of the same in and out, and has its ``weight`` and ``bias``. A fresh layer is
    that Linear after a SiLU, to which phi's coefficients are fitted by least squares. Beyond the grid phi goes on:
    along its tangent (``bspline``, ``chebyshev``), as the rational function, or as a line (``rbf``), so that the
    gradient never dies there.

    Args:
        in_features: D.
        out_features: width of the result.
        num_groups: functions; channel j has number ``j * num_groups // in_features``.
        basis: ``bspline`` (true B-splines on a uniform grid), ``rational`` (Group-Rational KAT), ``rbf`` (Gaussians at
            the grid points) or ``chebyshev`` (as many Chebyshev polynomials over the whole grid as there are B-splines,
            grid_size + degree).
        grid_size: intervals of the grid.
        degree: of the splines, or of the rational numerator (the published function has 5 over 4, here ``degree=5``);
            at least 2.
        bias: whether to add b.
        grid_range: interval that phi resolves; normalised features lie within it.

    Raises:
        ValueError: an unknown basis, or a number out of range.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_groups: int = 8,
        basis: Basis = "bspline",
        grid_size: int = 5,
        degree: int = 3,
        bias: bool = True,
        grid_range: tuple[float, float] = (-4.0, 4.0),
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        if grid_size < 1:
            raise ValueError(f"grid_size={grid_size} is less than 1.")
        if degree < 2:
            raise ValueError(f"degree={degree} is less than 2: there would be nothing smooth to learn.")
        low, high = grid_range
        self.basis = basis
        self.phi = _function(basis, in_features, num_groups, grid_size, degree, (low, high))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        return F.linear(self.phi(x), self.weight, self.bias)
