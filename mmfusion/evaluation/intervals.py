"""Cluster-bootstrap intervals of metrics, with weights instead of copies of rows.

A patient (lesion, study) drawn twice counts twice with all rows. Drawing single rows would treat several images of one
lesion as independent and give too narrow intervals.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval), ch. 14 (BCa);
Davison and Hinkley, Bootstrap Methods and their Application, 1997, sec. 3.8 (clusters).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.evaluation.metrics import METRICS, Metric
from mmfusion.evaluation.weighted import Floats, Rows, ratio
from mmfusion.figures import Interval, Intervals
from mmfusion.task import Task

#: Maximum number of elements (8 bytes) in the largest array of a chunk of replicates.
CHUNK = 2**20

#: Maximum number of parts left out in turn to estimate the acceleration of an interval.
JACKKNIFE_PARTS = 50


def bootstrap_counts(groups: ArrayLike, replicates: int = 1000, seed: int = 0) -> Floats:
    """Number of times each row is drawn when the groups are resampled with replacement.

    Args:
        groups: (N,) group of each row, e.g. the patient; ``np.arange(N)`` resamples single rows.
        replicates: Number R of resamples.
        seed: Random seed; the same seed and groups give the same counts, so that models can be compared in pairs.

    Returns:
        (R, N) integer-valued floats, equal within a group.
    """
    return np.concatenate(list(_counts(groups, replicates, seed)))


def weighted_headline(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike, task: Task | None = None
) -> dict[str, Floats]:
    """All metrics for many weightings of the same rows at once.

    Args:
        labels: (N,) int, true classes.
        probabilities: (N, C), each row sums to 1.
        weights: (R, N), nonnegative, e.g. :func:`bootstrap_counts`.
        task: Task of labels and answers; None means ``multiclass``.

    Returns:
        Name of :data:`~mmfusion.evaluation.metrics.METRICS` -> (R,). Classes without weight are excluded from means.
        NaN if undefined: for all without any weight, for ``macro_auroc`` if one class has all the weight.

    Raises:
        ValueError: Shapes do not match, weights are negative, or labels and probabilities are invalid for
            ``classification_metrics``.
    """
    (rows, metrics), w = _opened(labels, probabilities, task), np.asarray(weights, dtype=np.float64)
    if w.ndim != 2 or w.shape[1] != len(rows) or (w < 0).any():
        raise ValueError(f"Weights must be (R, {len(rows)}) and at least 0; got {w.shape}, minimum {w.min(initial=0)}.")
    return _figures(rows, metrics, _split(w, len(rows)))[0]


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of bootstrap replicates: lower and upper end, NaN if no replicate is defined.

    Args:
        values: (R,) replicates; NaN (undefined) ones are ignored.
        level: Confidence level.
    """
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval must be between 0 and 1, e.g. 0.95; got {level}.")
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)] if not np.isnan(known).all() else np.array([np.nan])
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def metric_intervals(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: ArrayLike | None = None,
    *,
    class_names: Sequence[str] | None = None,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    task: Task | None = None,
) -> Intervals:
    """Every metric with its bootstrap interval.

    Args:
        labels: (N,) int, true classes.
        probabilities: (N, C), each row sums to 1.
        groups: (N,) units of the bootstrap, e.g. patients; None resamples rows.
        class_names: The C names; if given, per-class metrics (``recall``, ``auroc``) are included.
        replicates: Number of resamples.
        level: Confidence level.
        seed: Random seed.
        task: As in :func:`weighted_headline`.
    """
    rows, metrics = _opened(labels, probabilities, task)
    groups = np.arange(len(rows)) if groups is None else groups
    drawn, of_classes = _figures(rows, metrics, _counts(groups, replicates, seed))
    flat, by_class = _figures(rows, metrics, [np.ones((1, len(rows)))])
    per_class = {
        label: {name: _interval(value[0, c], of_classes[name][:, c], level) for name, value in by_class.items()}
        for c, label in enumerate(class_names or ())
    }
    figures = {name: _interval(value[0], drawn[name], level) for name, value in flat.items()}
    return Intervals(figures, None if class_names is None else per_class)


def figure_intervals(
    figures: Callable[[Floats], Floats],
    groups: ArrayLike,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[Interval]:
    """Bootstrap intervals of arbitrary statistics, resampling whole groups.

    Bias-corrected and accelerated (BCa, Efron 1987): slopes and net benefits of some hundred patients are biased and
    skewed, and percentile intervals hold them too rarely.

    Args:
        figures: Function from weights (R, N) to K statistics (R, K), NaN if undefined.
        groups: (N,) units of the bootstrap.
        replicates: Number of resamples.
        level: Confidence level.
        seed: Random seed.

    Returns:
        K intervals.
    """
    plain = figures(np.ones((1, len(np.asarray(groups)))))[0]
    chunks = _counts(groups, replicates, seed), _left_out(groups, seed)
    drawn, left_out = (np.concatenate([figures(w) for w in each]) for each in chunks)
    return [_accelerated(*each, level) for each in zip(plain, drawn.T, left_out.T, strict=True)]


def ratio_interval(part: ArrayLike, whole: ArrayLike, groups: ArrayLike) -> list[Interval]:
    """Means over a subset of the rows, such as a sensitivity, with 95 % intervals from 1,000 resamples.

    Args:
        part: (N, K) values to average, 0 or 1 for shares.
        whole: (N,) 1 for rows in the subset.
        groups: (N,) units of the bootstrap.

    Returns:
        K intervals, undefined for an empty subset.
    """
    rows = np.asarray(whole, dtype=np.float64)
    values = np.asarray(part, dtype=np.float64) * rows[:, None]
    return figure_intervals(lambda w: ratio(w @ values, np.repeat((w @ rows)[:, None], values.shape[1], 1)), groups)


def _interval(value: float, replicates: Floats, level: float) -> Interval:
    ends = (value, *interval(replicates, level))
    return Interval(*(None if np.isnan(x) else float(x) for x in ends))


def _accelerated(value: float, replicates: Floats, left_out: Floats, level: float) -> Interval:
    """BCa interval of a value, from its bootstrap and jackknife replicates; percentile if it cannot be accelerated."""
    percentile = _interval(value, replicates, level)
    if percentile.value is None or percentile.low is None:
        return percentile
    known = replicates[~np.isnan(replicates)]
    below = (np.mean(known < value) + np.mean(known <= value)) / 2
    normal = NormalDist()
    bias = normal.inv_cdf(np.clip(below, 1e-6, 1 - 1e-6))
    deviations = left_out.mean() - left_out
    spread = (deviations**2).sum()
    acceleration = (deviations**3).sum() / (6 * spread**1.5) if spread > 0 else 0.0
    ends = (bias + normal.inv_cdf(tail) for tail in ((1 - level) / 2, (1 + level) / 2))
    # beyond its pole the formula would return to the opposite end
    shares = [normal.cdf(bias + end / max(1 - acceleration * end, 1e-9)) for end in ends]
    low, high = np.quantile(known, shares)
    return Interval(float(value), float(low), float(high))


def _left_out(groups: ArrayLike, seed: int) -> Iterator[Floats]:
    """Weights (p, N) in chunks that leave out each part of the groups in turn, at most :data:`JACKKNIFE_PARTS`."""
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    count = int(codes.max()) + 1
    part = (np.random.default_rng(seed).permutation(count) % JACKKNIFE_PARTS)[codes]
    for out in _split(np.arange(min(count, JACKKNIFE_PARTS)), len(codes)):
        yield (part != out[:, None]).astype(np.float64)


def _counts(groups: ArrayLike, replicates: int, seed: int) -> Iterator[Floats]:
    """The rows of :func:`bootstrap_counts` in chunks."""
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    count = int(codes.max()) + 1 if len(codes) else 0
    if count == 0 or replicates < 1:
        raise ValueError(f"A bootstrap needs rows and at least one replicate; got {len(codes)} rows, {replicates}.")
    generator = np.random.default_rng(seed)
    for size in _chunks(replicates, len(codes)):
        draws = generator.multinomial(count, np.full(count, 1 / count), size=size)
        yield draws[:, codes].astype(np.float64)


def _chunks(replicates: int, rows: int) -> Iterator[int]:
    step = max(1, CHUNK // rows)
    for start in range(0, replicates, step):
        yield min(step, replicates - start)


def _split(replicates: Floats | NDArray[np.int64], rows: int) -> list[Any]:
    """An array of replicates (R, ...) in chunks."""
    return np.split(replicates, np.cumsum([*_chunks(len(replicates), rows)])[:-1])


def _opened(labels: ArrayLike, answers: ArrayLike, task: Task | None) -> tuple[Any, list[Metric]]:
    """The rows of a task and its metrics."""
    if task is None:
        return Rows(labels, answers), [*METRICS.values()]
    return task.rows(labels, answers), [*task.metrics.values()]


def _figures(
    rows: Any, metrics: Sequence[Metric], weights: Iterable[Floats]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Values of all metrics (R,) and per class (R, C), over chunks of weights (r, N)."""
    parts: list[tuple[dict[str, Floats], dict[str, Floats]]] = []
    for chunk in weights:
        weighted = rows.weighted(chunk)
        by_class = {metric.class_name: metric.by_class(weighted) for metric in metrics if metric.class_name}
        parts.append(({metric.name: metric(weighted) for metric in metrics}, by_class))
    flat, by_class = (
        {k: np.concatenate([d[k] for d in chunks]) for k in chunks[0]} for chunks in zip(*parts, strict=True)
    )
    return flat, by_class
