"""Mean usage of experts and gates, over all rows and by class."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mmfusion.results import Shares


def mean_shares(
    shares: Mapping[str, NDArray[np.float32]], positives: Mapping[str, NDArray[np.bool_]]
) -> dict[str, Shares]:
    """Mean shares over the rows, and over the rows of each class that has any.

    Args:
        shares: Name -> (N, n), named as in :func:`~mmfusion.inference.shares.shares_of`.
        positives: Class -> (N,) whether a row has it.
    """

    def mean(values: NDArray[np.float32]) -> list[float]:
        return values.mean(axis=0, dtype=np.float64).tolist()

    return {
        kind: Shares(mean(values), {name: mean(values[own]) for name, own in positives.items() if own.any()})
        for kind, values in shares.items()
    }
