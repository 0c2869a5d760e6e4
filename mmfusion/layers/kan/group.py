"""A learnable univariate function per group of channels."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from mmfusion.layers.precision import at_least_float32

#: elements worked on at a time: a block and its intermediate results fit into a core's cache.
BLOCK = 2**16


class GroupFunction(nn.Module):
    """A learnable univariate function per group of channels, applied to every channel of the group.

    Channel j belongs to group ``j * num_groups // num_channels``. A new function is the least-squares fit to SiLU over
    the grid.

    Args:
        num_channels: D.
        num_groups: Number of functions, at most D.
        grid_range: Interval that the function resolves; outside it, the function continues without a bound.
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

    def per_channel(self, coefficients: Tensor) -> Tensor:
        """Coefficients of the groups (G, K) -> of the channels (K, D), whose gradient is a sum over each group."""
        return coefficients.index_select(0, self.groups(coefficients.device)).T.contiguous()

    def sampled(self, intervals: int) -> Tensor:
        """Points of the fit: the grid with this many intervals, and one more interval on each side."""
        step = (self.high - self.low) / intervals
        return torch.linspace(self.low - step, self.high + step, 512, dtype=torch.float64, device="cpu")

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) in at least single precision -> (N, D)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., D); half precision is computed in single."""
        return self.evaluate(at_least_float32(x).reshape(-1, self.num_channels)).view(x.shape).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.num_channels}, num_groups={self.num_groups}, grid_range=({self.low:g}, {self.high:g})"


def blocks(x: Tensor) -> Iterator[slice]:
    """Slices of rows, each of about ``BLOCK`` elements."""
    rows = max(1, BLOCK // x.shape[1])
    return (slice(start, start + rows) for start in range(0, len(x), rows))


def horner(coefficients: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
    """Value and slope at t (N, D) of a polynomial per column, (degree + 1, D), the constant first."""
    slope = coefficients[-1].expand_as(t)
    value = torch.addcmul(coefficients[-2], slope, t)
    for k in range(len(coefficients) - 3, -1, -1):
        slope = torch.addcmul(value, slope, t)
        value = torch.addcmul(coefficients[k], value, t)
    return value, slope


def add_power_sums(sums: Tensor, weight: Tensor, t: Tensor) -> None:
    """Add sum_n weight_nd t_nd^k, weight and t (N, D), to row k of sums (K, D); ``weight`` is overwritten."""
    ones = weight.new_ones(len(weight))
    for k in range(len(sums)):
        sums[k].addmv_(weight.T, ones)
        if k + 1 < len(sums):
            weight.mul_(t)


def least_squares(design: Tensor, target: Tensor) -> Tensor:
    """Least-squares coefficients (K,) of a design matrix (N, K) for a target (N,)."""
    return torch.linalg.lstsq(design, target.unsqueeze(1)).solution.squeeze(1)
