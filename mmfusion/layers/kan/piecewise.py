"""Functions that are a polynomial on each interval of a grid."""

from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from mmfusion.layers.kan.group import GroupFunction, blocks, least_squares


class PiecewisePolynomial(GroupFunction):
    """f(x) = sum_k w_k B_k(x) for a basis of piecewise polynomials on equal intervals; linear beyond the grid.

    A small matrix product converts the coefficients to one polynomial per interval; each element then evaluates its
    interval's polynomial by Horner's rule, regardless of the number of basis functions.

    Args:
        pieces: (intervals, degree + 1, basis functions): the basis as polynomials, lowest power first, of the position
            within the interval, from -1/2 to 1/2.
    """

    pieces: Tensor

    def __init__(self, num_channels: int, num_groups: int, pieces: np.ndarray, grid_range: tuple[float, float]) -> None:
        super().__init__(num_channels, num_groups, grid_range)
        self.grid = Grid(self.low, self.high, len(pieces))
        in_units_of_x = _extend(pieces) / self.grid.step ** np.arange(pieces.shape[1])[:, None]
        self._exact = torch.from_numpy(in_units_of_x)
        self.register_buffer("pieces", self._exact.to(torch.get_default_dtype()), persistent=False)
        self.coefficients = nn.Parameter(torch.empty(num_groups, pieces.shape[2]))
        self.reset_parameters()

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        """Recompute the basis if the layer changes its type, since a rounded one would stay rounded in double."""
        super()._apply(fn, recurse)
        dtype = torch.promote_types(self.pieces.dtype, torch.float32)
        self.pieces = self._exact.to(dtype).to(self.pieces.device)
        return self

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fit the function to SiLU."""
        x = self.sampled(self.grid.intervals)
        u, interval = self.grid.locate(x)
        powers = u.unsqueeze(1) ** torch.arange(self.pieces.shape[1], device="cpu")
        design = torch.einsum("np,npb->nb", powers, self._exact[interval])
        self.coefficients.copy_(least_squares(design, F.silu(x)))

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
    """Equal intervals with an unbounded one on each side."""

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
    """Add an interval on each side in which the function continues along its tangent."""
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


class _Piecewise(torch.autograd.Function):
    """A polynomial per interval and group, block by block; the slope is saved in the forward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, polynomials: Tensor, first: Tensor, grid: Grid) -> Tensor:
        y, slope = torch.empty_like(x), torch.empty_like(x) if ctx.needs_input_grad[0] else None
        for rows in blocks(x):
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
        for rows in blocks(x):
            u, interval = ctx.grid.locate(x[rows])
            column, weight = interval.add_(first), grad[rows]
            sums = []
            for power in range(0, powers, 2):
                # two powers at a time, as one complex number, because the scattered access dominates the cost.
                # One sum per row, then over rows: rows run in parallel, and single precision loses less.
                pair = torch.complex(weight, weight * u)
                table = pair.new_zeros(len(u), columns).scatter_add_(1, column, pair).sum(0)
                sums += [table.real, table.imag]
                if power + 2 < powers:
                    weight = (weight * u).mul_(u)
            dpolynomials += torch.stack(sums[:powers])
        return None if slope is None else slope * grad, dpolynomials, None, None
