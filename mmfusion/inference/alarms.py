"""Alarm scores: several classes that raise one alarm."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def alarm_score(probabilities: ArrayLike, alarm: Sequence[str], class_names: Sequence[str]) -> NDArray[np.float64]:
    """(N,) summed probability of some classes, from (N, C)."""
    p = np.asarray(probabilities, dtype=np.float64)
    return p[:, [list(class_names).index(name) for name in alarm]].sum(axis=1)
