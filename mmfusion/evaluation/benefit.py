"""Net benefit of decisions, and slope and intercept of calibration, with cluster-bootstrap intervals.

Source: Vickers and Elkin, Decision Curve Analysis, Medical Decision Making 2006; Cox, Two Further Applications of a
Model for Binary Regression, Biometrika 1958, and Van Calster et al., Calibration: the Achilles Heel of Predictive
Analytics, BMC Medicine 2019 (slope, and intercept given a slope of 1).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logsumexp

from mmfusion.decisions import Benefit, CalibrationLine
from mmfusion.evaluation.intervals import figure_intervals
from mmfusion.evaluation.temperature import as_logits
from mmfusion.evaluation.weighted import Floats, ratio
from mmfusion.figures import Interval

#: Newton's method: number of steps, size of the last step (its error is quadratic in it), and largest step.
STEPS, SMALLEST, LARGEST = 100, 1e-7, 2.0

#: Larger slopes mean perfect separation, for which no finite slope exists.
STEEPEST = 1e3


def net_benefit(
    positive: ArrayLike,
    score: ArrayLike,
    thresholds: ArrayLike,
    *,
    weights: ArrayLike | None = None,
    prevalence: float | None = None,
) -> Floats:
    """Net benefit of treating the rows with scores at or above a threshold, in true positives per row.

    ``TP / n - FP / n * t / (1 - t)``: at threshold t a true positive is worth ``(1 - t) / t`` false positives.

    Args:
        positive: (N,) 1 or True for positive rows.
        score: (N,) probabilities.
        thresholds: (T,) probability thresholds between 0 and 1.
        weights: (R, N), e.g. :func:`~mmfusion.evaluation.intervals.bootstrap_counts`; None counts each row once.
        prevalence: Prevalence of positives to assume; None uses that of the rows.

    Returns:
        (T,), with weights (R, T); NaN without rows, or if ``prevalence`` is given and all rows are of one kind.

    Raises:
        ValueError: A threshold is not between 0 and 1.
    """
    t = np.asarray(thresholds, dtype=np.float64)
    if t.ndim != 1 or ((t <= 0) | (t >= 1)).any():
        raise ValueError(f"Thresholds of net benefit must be probabilities between 0 and 1; got {t.tolist()}.")
    y, p = np.asarray(positive, dtype=np.float64), np.asarray(score, dtype=np.float64)
    w = np.ones((1, len(y))) if weights is None else np.asarray(weights, dtype=np.float64)
    acts = (p[:, None] >= t).astype(np.float64)
    right, wrong = w @ (acts * y[:, None]), w @ (acts * (1 - y)[:, None])
    kinds = [np.repeat((w @ one)[:, None], len(t), 1) for one in (y, 1 - y)]
    if prevalence is None:
        total = kinds[0] + kinds[1]
        found = ratio(right, total) - ratio(wrong, total) * t / (1 - t)
    else:
        found = ratio(right, kinds[0]) * prevalence - ratio(wrong, kinds[1]) * (1 - prevalence) * t / (1 - t)
    return found[0] if weights is None else found


def benefit_figures(
    positive: ArrayLike,
    score: ArrayLike,
    groups: ArrayLike,
    thresholds: Sequence[float],
    prevalence: float | None = None,
    **bootstrap: Any,
) -> list[Benefit]:
    """Net benefit of a model, of treating all, and their difference, with intervals, at each threshold.

    Args:
        positive: As in :func:`net_benefit`, like ``score`` and ``prevalence``.
        score: (N,).
        groups: (N,) units of the bootstrap.
        thresholds: Probability thresholds.
        prevalence: See :func:`net_benefit`.
        bootstrap: ``replicates``, ``level`` and ``seed``.
    """
    y, everyone = np.asarray(positive), np.ones(len(np.asarray(positive)))

    def figures(w: Floats) -> Floats:
        model, all_ = (net_benefit(y, s, thresholds, weights=w, prevalence=prevalence) for s in (score, everyone))
        return np.concatenate([model, all_, model - all_], axis=1)

    found, count = figure_intervals(figures, groups, **bootstrap), len(thresholds)
    return [Benefit(t, found[i], found[count + i], found[2 * count + i]) for i, t in enumerate(thresholds)]


def benefit_difference(
    positive: ArrayLike,
    scores: tuple[ArrayLike, ArrayLike],
    groups: ArrayLike,
    thresholds: Sequence[float],
    prevalence: float | None = None,
    **bootstrap: Any,
) -> list[Interval]:
    """Difference in net benefit, second model minus first, on the same rows and resamples, at each threshold.

    Args:
        positive: As in :func:`benefit_figures`, like all others except ``scores``.
        scores: (N,) scores of each model.
        groups: (N,).
        thresholds: See :func:`net_benefit`.
        prevalence: See :func:`net_benefit`.
        bootstrap: See :func:`benefit_figures`.
    """

    def figures(w: Floats) -> Floats:
        one, two = (net_benefit(positive, s, thresholds, weights=w, prevalence=prevalence) for s in scores)
        return two - one

    return figure_intervals(figures, groups, **bootstrap)


def log_odds(probabilities: ArrayLike, classes: Sequence[int]) -> Floats:
    """(N,) finite log-odds of some classes against all others, from probabilities (N, C)."""
    logits = as_logits(probabilities)
    others = [c for c in range(logits.shape[1]) if c not in classes]
    return logsumexp(logits[:, list(classes)], axis=1) - logsumexp(logits[:, others], axis=1)


def calibration_line(positive: ArrayLike, logit: ArrayLike, weights: ArrayLike | None = None) -> tuple[Floats, Floats]:
    """Calibration slope and intercept; see :class:`~mmfusion.decisions.CalibrationLine`.

    Args:
        positive: (N,) 1 or True for positive rows.
        logit: (N,) log-odds of the predicted probability.
        weights: (R, N) nonnegative; None counts each row once.

    Returns:
        (R,) slopes and (R,) intercepts given a slope of 1; NaN if all outcomes are equal or perfectly separated.
    """
    y, x = np.asarray(positive, dtype=np.float64), np.asarray(logit, dtype=np.float64)
    w = np.ones((1, len(y))) if weights is None else np.asarray(weights, dtype=np.float64)
    both = (w @ y > 0) & (w @ (1 - y) > 0)
    slope, intercept = np.full(len(w), np.nan), np.full(len(w), np.nan)
    mixed = both & _overlap(y > 0, x, w > 0)
    slope[mixed] = _fit(y, x, w[mixed], free_slope=True)[1]
    intercept[both] = _fit(y, x, w[both], free_slope=False)[0]
    return slope, intercept


def _overlap(positive: NDArray[np.bool_], x: Floats, counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """(R,) whether the x of positive and negative rows overlap among those counted (R, N): else no slope is finite."""
    ends = {}
    for side in (True, False):
        own = counted & (positive == side)
        ends[side] = np.where(own, x, np.inf).min(axis=1), np.where(own, x, -np.inf).max(axis=1)
    (low, high), (other_low, other_high) = ends[True], ends[False]
    overlap: NDArray[np.bool_] = (low < other_high) & (other_low < high)
    return overlap


def _fit(y: Floats, x: Floats, w: Floats, *, free_slope: bool) -> tuple[Floats, Floats]:
    """Intercepts and slopes (R,) of logistic regressions of y on x with weights (R, N), by Newton's method."""
    a, b = np.zeros(len(w)), np.ones(len(w))
    if (
        len(w) > 1
        and np.isfinite(start := np.concatenate(_fit(y, x, w.mean(axis=0)[None], free_slope=free_slope))).all()
    ):
        a[:], b[:] = start  # the replicates are close to the fit of all rows
    going: NDArray[np.int64] = np.arange(len(w))
    for _ in range(STEPS):
        own = w[going]
        mu = expit(a[going, None] + b[going, None] * x)
        error, curve = own * (y - mu), own * mu * (1 - mu)
        g0, h00 = error.sum(axis=1), curve.sum(axis=1)
        if free_slope:
            g1, h01, h11 = error @ x, curve @ x, curve @ x**2
            det = h00 * h11 - h01**2
            step = np.stack([_quotient(h11 * g0 - h01 * g1, det), _quotient(h00 * g1 - h01 * g0, det)])
        else:
            step = np.stack([_quotient(g0, h00), np.zeros(len(g0))])
        size = np.abs(step).max(axis=0)
        step *= np.where(np.isfinite(size), np.minimum(1, LARGEST / np.maximum(size, SMALLEST)), np.nan)
        a[going] += step[0]
        b[going] += step[1]
        lost = ~np.isfinite(size) | (np.abs(b[going]) > STEEPEST)
        a[going[lost]] = b[going[lost]] = np.nan
        going = going[~lost & ~(size <= SMALLEST * np.maximum(1, np.abs(b[going])))]
        if not len(going):
            break
    a[going] = b[going] = np.nan
    return a, b


def _quotient(part: Floats, whole: Floats) -> Floats:
    """Elementwise quotient of any signs; NaN where the denominator is 0, as for perfectly separated rows."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def calibration_lines(
    labels: ArrayLike, probabilities: ArrayLike, groups: ArrayLike, classes: Sequence[Sequence[int]], **bootstrap: Any
) -> list[CalibrationLine]:
    """Calibration slope and intercept for groups of classes, with intervals.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        groups: (N,) units of the bootstrap.
        classes: For each line, the indices of the classes that form one outcome.
        bootstrap: See :func:`benefit_figures`.
    """
    y, found = np.asarray(labels), []
    for joined in classes:
        positive, logit = np.isin(y, joined), log_odds(probabilities, joined)

        def figures(w: Floats, positive: Any = positive, logit: Floats = logit) -> Floats:
            return np.stack(calibration_line(positive, logit, w), axis=1)

        found.append(CalibrationLine(*figure_intervals(figures, groups, **bootstrap)))
    return found
