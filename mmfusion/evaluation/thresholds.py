"""Decision thresholds: from which probability of a class on to raise the alarm, so as to miss few of its cases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.evaluation.intervals import ratio_interval
from mmfusion.results import Interval, Threshold


def sensitivity_threshold(positive: ArrayLike, score: ArrayLike, sensitivity: float) -> float | None:
    """The largest threshold at which ``score >= threshold`` finds at least this share of the positive rows.

    Args:
        positive: (N,) bool.
        score: (N,) probability of the class.
        sensitivity: wanted share, above 0 and at most 1.

    Returns:
        One of the positive rows' scores, hence a threshold with the highest specificity; None without positive rows.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"A sensitivity is above 0 and at most 1, e.g. 0.9; got {sensitivity}.")
    found = np.sort(np.asarray(score)[np.asarray(positive, dtype=bool)])[::-1]
    if not len(found):
        return None
    return float(found[int(np.ceil(sensitivity * len(found) - 1e-9)) - 1])


def threshold_figures(
    validation: tuple[NDArray[np.int64], NDArray[Any]],
    measured: tuple[NDArray[np.int64], NDArray[Any]],
    groups: ArrayLike,
    class_names: Sequence[str],
    sensitivity: float = 0.9,
) -> dict[str, Threshold]:
    """Thresholds from the validation rows, and what they do on others.

    Args:
        validation: labels (M,) and probabilities (M, C) that choose the thresholds.
        measured: labels (N,) and probabilities (N, C) that they are tried on.
        groups: (N,) what the bootstrap draws as a whole.
        class_names: the C names.
        sensitivity: wanted on the validation rows.

    Returns:
        Class -> threshold, with sensitivity and specificity of the measured rows. The intervals take the threshold as
        given: they hold the chance in the measured rows, not that in the validation rows.
    """
    y, p = measured
    result: dict[str, Threshold] = {}
    for c, name in enumerate(class_names):
        positive = validation[0] == c
        threshold = sensitivity_threshold(positive, validation[1][:, c], sensitivity)
        measured_figures: tuple[Interval, ...] = ()
        if threshold is not None:
            alarm = (p[:, c] >= threshold)[:, None]
            measured_figures = (*ratio_interval(alarm, y == c, groups), *ratio_interval(~alarm, y != c, groups))
        result[name] = Threshold(threshold, int(positive.sum()), *measured_figures)
    return result
