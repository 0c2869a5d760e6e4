"""Operating points applied to probabilities."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.decisions import OperatingPoint


def alarm_score(probabilities: ArrayLike, alarm: Sequence[str], class_names: Sequence[str]) -> NDArray[np.float64]:
    """(N,) summed probability of some classes, from (N, C)."""
    p = np.asarray(probabilities, dtype=np.float64)
    return p[:, [list(class_names).index(name) for name in alarm]].sum(axis=1)


def raised(points: Sequence[OperatingPoint], probabilities: ArrayLike, class_names: Sequence[str]) -> NDArray[np.bool_]:
    """(N, P) whether each row raises the alarm of each point, from probabilities (N, C); never where they are NaN."""
    scores = [alarm_score(probabilities, point.alarm, class_names) >= point.threshold for point in points]
    return np.stack(scores, axis=1) if scores else np.zeros((len(np.asarray(probabilities)), 0), dtype=bool)
