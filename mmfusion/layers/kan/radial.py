"""Radial basis functions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.layers.kan.group import GroupFunction, least_squares


class RadialBasis(GroupFunction):
    """f(x) = a + b x + sum_k w_k exp(-((x - c_k) / h)^2), centers c_k at the grid points, h their distance.

    FastKAN (Li 2024) with an added linear term, which continues the function beyond the grid.
    """

    def __init__(self, num_channels: int, num_groups: int, grid_size: int, grid_range: tuple[float, float]) -> None:
        super().__init__(num_channels, num_groups, grid_range)
        self.grid_size = grid_size
        self.coefficients = nn.Parameter(torch.empty(num_groups, grid_size + 3))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Fit the function to SiLU."""
        x = self.sampled(self.grid_size)
        self.coefficients.copy_(least_squares(self.basis(x), F.silu(x)))

    def basis(self, x: Tensor) -> Tensor:
        """(...) -> (..., grid_size + 3)."""
        centers = torch.linspace(self.low, self.high, self.grid_size + 1, dtype=x.dtype, device=x.device)
        x = x.unsqueeze(-1)
        bumps = torch.exp(-((x - centers) * (self.grid_size / (self.high - self.low))).square())
        return torch.cat([torch.ones_like(x), x, bumps], dim=-1)

    def evaluate(self, x: Tensor) -> Tensor:
        """(N, D) -> (N, D)."""
        return (self.basis(x) * self.coefficients.to(x.dtype)[self.groups(x.device)]).sum(-1)
