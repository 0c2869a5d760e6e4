"""B-splines."""

import numpy as np
import torch
from torch import Tensor


def bspline_basis(x: Tensor, knots: Tensor, degree: int) -> Tensor:
    """B-spline basis functions by the recursion of Cox and de Boor.

    Args:
        x: (...).
        knots: (K,), non-decreasing; repeated knots are allowed.
        degree: Degree of the polynomials, at least 0.

    Returns:
        (..., K - degree - 1): the value of each basis function, zero outside its support. At the end of the base
        interval (``knots[-degree - 1]``) the value is the limit from the left, as in scipy.

    Raises:
        ValueError: Too few knots for one basis function.
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


def bspline_pieces(grid_size: int, degree: int) -> np.ndarray:
    """The uniform B-spline basis as polynomials per interval, (grid_size, degree + 1, grid_size + degree)."""
    device = torch.device("cpu")
    knots = torch.arange(-degree, grid_size + degree + 1, dtype=torch.float64, device=device)
    u = (torch.arange(degree + 1, dtype=torch.float64, device=device) + 0.5) / (degree + 1) - 0.5
    x = torch.arange(grid_size, dtype=torch.float64, device=device)[:, None] + 0.5 + u
    values = bspline_basis(x, knots, degree).numpy()
    return np.linalg.solve(np.vander(u.numpy(), increasing=True), values)
