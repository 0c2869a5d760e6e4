"""How much a model uses its experts and what its gates let through, over many rows and by class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mmfusion.outputs import FusionOutput

#: name of the router's probabilities among the shares.
EXPERTS = "experts"

#: a gate of more values than this has one per feature dimension; it counts by their mean.
MOST_VALUES = 6


def shares_of(output: FusionOutput) -> dict[str, Tensor]:
    """What each row of a batch was given by router and gates.

    Args:
        output: of a model.

    Returns:
        ``experts``, the router's probabilities (B, K), and each gate by its name, (B, n): its values, or their mean
        where there are more than :data:`MOST_VALUES`. Float32; empty for a model that has neither.
    """
    shares = {name: gate.float().unsqueeze(-1).flatten(1) for name, gate in (output.gates or {}).items()}
    shares = {name: gate if gate.shape[1] <= MOST_VALUES else gate.mean(1, True) for name, gate in shares.items()}
    return shares if output.router_probs is None else {EXPERTS: output.router_probs.float(), **shares}


def mean_shares(
    shares: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64], class_names: Sequence[str]
) -> dict[str, Any]:
    """Means of the shares over the rows, and over the rows of each class, ready for JSON.

    Args:
        shares: name -> (N, n), as :func:`shares_of` names them.
        labels: (N,) int, the true class of each row.
        class_names: the C names.

    Returns:
        ``expert_use`` (``mean``: K shares; ``per_class``: class -> K shares) where there are experts, ``gates``
        (name -> the same of n values) where there are gates. A class without rows is in no ``per_class``.
    """
    found = {name: _means(values, labels, class_names) for name, values in shares.items()}
    experts = found.pop(EXPERTS, None)
    return ({} if experts is None else {"expert_use": experts}) | ({"gates": found} if found else {})


def _means(values: NDArray[np.float32], labels: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    rows = {name: values[labels == c] for c, name in enumerate(class_names)}
    return {
        "mean": values.mean(axis=0, dtype=np.float64).tolist(),
        "per_class": {name: own.mean(axis=0, dtype=np.float64).tolist() for name, own in rows.items() if len(own)},
    }
