"""Decision thresholds: probability of a class above which to raise an alarm, given a target sensitivity."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.decisions import Rule
from mmfusion.evaluation.intervals import ratio_interval
from mmfusion.figures import Interval
from mmfusion.results import Threshold

#: Relative distance of a threshold below the score that it is based on.
HAIR = 1e-6


def sensitivity_threshold(positive: ArrayLike, score: ArrayLike, sensitivity: float) -> float | None:
    """The largest threshold at which ``score >= threshold`` has at least this sensitivity.

    Args:
        positive: (N,) bool.
        score: (N,) probability of the class.
        sensitivity: Target, above 0 and at most 1.

    Returns:
        A score of a positive row, hence the threshold with the highest specificity; None without positive rows.
    """
    if not 0 < sensitivity <= 1:
        raise ValueError(f"A sensitivity must be above 0 and at most 1, e.g. 0.9; got {sensitivity}.")
    found = np.sort(np.asarray(score)[np.asarray(positive, dtype=bool)])[::-1]
    if not len(found):
        return None
    return float(found[int(np.ceil(sensitivity * len(found) - 1e-9)) - 1])


def rule_threshold(positive: ArrayLike, score: ArrayLike, rule: Rule, prevalence: float | None = None) -> float | None:
    """The threshold that meets a rule with the fewest alarms (sensitivity) or the most (other rules).

    Args:
        positive: (N,) bool.
        score: (N,) probability.
        rule: Rule to meet.
        prevalence: Prevalence assumed for ``alarms``; None uses that of the rows.

    Returns:
        Slightly below one of the scores, to be robust to rounding; None if no score meets the rule or there are no rows
        of the kind it needs.
    """
    y, p = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    if rule.figure == "sensitivity":
        chosen = sensitivity_threshold(y, p, rule.limit)
        return None if chosen is None else chosen * (1 - HAIR)
    candidates = np.unique(p)
    # share of each kind of rows with at least this score
    hits, false = (1 - np.searchsorted(np.sort(p[kind]), candidates, "left") / max(1, kind.sum()) for kind in (y, ~y))
    if not (~y).any() or (rule.figure == "alarms" and prevalence is not None and not y.any()):
        return None
    share = y.mean() if prevalence is None else prevalence
    rate = share * hits + (1 - share) * false
    kept = 1 - false >= rule.limit - 1e-9 if rule.figure == "specificity" else rate <= rule.limit + 1e-9
    return float(candidates[kept][0]) * (1 - HAIR) if kept.any() else None


def threshold_figures(
    validation: tuple[NDArray[np.int64], NDArray[Any]],
    measured: tuple[NDArray[np.int64], NDArray[Any]],
    groups: ArrayLike,
    class_names: Sequence[str],
    sensitivity: float = 0.9,
) -> dict[str, Threshold]:
    """Thresholds from the validation rows and their metrics on other rows.

    Args:
        validation: Labels (M,) and probabilities (M, C) to choose the thresholds on.
        measured: Labels (N,) and probabilities (N, C) to evaluate them on.
        groups: (N,) units of the bootstrap.
        class_names: The C names.
        sensitivity: Target on the validation rows.

    Returns:
        Class -> threshold, with sensitivity and specificity on the evaluated rows. The intervals treat the threshold as
        fixed: they ignore the variation of the validation rows.
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
