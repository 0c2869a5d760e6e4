"""Chebyshev polynomials."""

import numpy as np


def chebyshev_pieces(degree: int) -> np.ndarray:
    """Chebyshev polynomials T_0 ... T_degree of 2u, (1, degree + 1, degree + 1)."""
    pieces = np.zeros((1, degree + 1, degree + 1))
    for k in range(degree + 1):
        series = np.polynomial.Chebyshev.basis(k, domain=[-0.5, 0.5])
        pieces[0, : k + 1, k] = series.convert(kind=np.polynomial.Polynomial, domain=[-1, 1]).coef
    return pieces
