"""Group KAN layer: a linear map of the groups' functions."""

from typing import Literal, get_args

from torch import Tensor, nn
from torch.nn import functional as F

from mmfusion.layers.kan.chebyshev import Chebyshev
from mmfusion.layers.kan.group import GroupFunction
from mmfusion.layers.kan.piecewise import PiecewisePolynomial
from mmfusion.layers.kan.radial import RadialBasis
from mmfusion.layers.kan.rational import Rational
from mmfusion.layers.kan.splines import bspline_pieces

Basis = Literal["bspline", "rational", "rbf", "chebyshev"]


def _function(
    basis: str, channels: int, groups: int, grid_size: int, degree: int, grid_range: tuple[float, float]
) -> GroupFunction:
    match basis:
        case "bspline":
            return PiecewisePolynomial(channels, groups, bspline_pieces(grid_size, degree), grid_range)
        case "chebyshev":
            return Chebyshev(channels, groups, grid_size + degree - 1, grid_range)
        case "rational":
            return Rational(channels, groups, degree, grid_range)
        case "rbf":
            return RadialBasis(channels, groups, grid_size, grid_range)
    raise ValueError(f"basis={basis!r} is not one of {', '.join(map(repr, get_args(Basis)))}.")


class GroupKANLinear(nn.Linear):
    """Kolmogorov-Arnold layer y = W phi(x) + b with phi learned and shared by a group of channels (Liu et al. 2024).

    A drop-in replacement of ``nn.Linear``, with its ``weight`` and ``bias``. A new layer equals that Linear after a
    SiLU, to which phi's coefficients are fitted by least squares. Outside the grid, phi continues along its tangent
    (``bspline``, ``chebyshev``), as the rational function, or as a line (``rbf``), so that the gradient does not
    vanish.

    Args:
        in_features: D.
        out_features: Width of the output.
        num_groups: Number of functions; channel j has function ``j * num_groups // in_features``.
        basis: ``bspline`` (true B-splines on a uniform grid), ``rational`` (Group-Rational KAT), ``rbf`` (Gaussians at
            the grid points) or ``chebyshev`` (as many Chebyshev polynomials over the whole grid as there are B-splines,
            grid_size + degree). The published GroupKAN is rational only.
        grid_size: Number of grid intervals.
        degree: Degree of the splines, or of the rational numerator (the published function has degrees 5 and 4, here
            ``degree=5``); at least 2.
        bias: Whether to add b.
        grid_range: Interval that phi resolves; normalized features are inside.

    Raises:
        ValueError: An unknown basis, or a number out of range.
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
