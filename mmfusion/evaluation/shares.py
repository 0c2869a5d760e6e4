"""How much a model uses its experts and what its gates let through, over many rows and by class."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from mmfusion.results import Shares


def mean_shares(
    shares: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, Shares]:
    """Means of the shares over the rows, and over the rows of each class that has any.

    Args:
        shares: Name -> (N, n), as :func:`~mmfusion.inference.shares.shares_of` names them.
        labels: (N,) int, the true class of each row.
        class_names: The C names.
    """

    def mean(values: NDArray[np.float32]) -> list[float]:
        return values.mean(axis=0, dtype=np.float64).tolist()

    rows = {name: labels == c for c, name in enumerate(class_names)}
    return {
        kind: Shares(mean(values), {name: mean(values[own]) for name, own in rows.items() if own.any()})
        for kind, values in shares.items()
    }
