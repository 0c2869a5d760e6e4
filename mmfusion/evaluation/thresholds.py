"""Decision thresholds: from which probability of a class on to raise the alarm, so as to miss few of its cases."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.decisions import Rule
from mmfusion.evaluation.intervals import ratio_interval
from mmfusion.figures import Interval
from mmfusion.results import Threshold

#: share of a score by which a threshold lies below it.
HAIR = 1e-6


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


def rule_threshold(positive: ArrayLike, score: ArrayLike, rule: Rule, prevalence: float | None = None) -> float | None:
    """The threshold that keeps a rule and raises as few alarms (sensitivity), or as many (the others), as it allows.

    Args:
        positive: (N,) bool.
        score: (N,) probability.
        rule: What to keep.
        prevalence: Share of positives at which ``alarms`` count; None takes that of the rows.

    Returns:
        A hair below one of the scores, so that rounding does not silence that row; None where no score keeps the rule,
        or there are no rows of the kind that it is about.
    """
    y, p = np.asarray(positive, dtype=bool), np.asarray(score, dtype=np.float64)
    if rule.figure == "sensitivity":
        chosen = sensitivity_threshold(y, p, rule.limit)
        return None if chosen is None else chosen * (1 - HAIR)
    candidates = np.unique(p)
    # share of each kind of rows with at least the score
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
