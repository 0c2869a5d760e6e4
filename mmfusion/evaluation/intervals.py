"""Uncertainty of figures: the bootstrap over whole groups, with weights in place of copies of rows.

A patient (lesion, study) who is drawn twice counts twice, with all rows. Drawing single rows instead would pretend that
several pictures of one lesion are independent, and the intervals would be too narrow.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval); Davison and Hinkley,
Bootstrap Methods and their Application, 1997, sec. 3.8 (whole groups are drawn).
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmfusion.evaluation.metrics import METRICS, Metric
from mmfusion.evaluation.weighted import Floats, Rows, ratio
from mmfusion.figures import Interval
from mmfusion.results import Intervals
from mmfusion.task import Task

#: numbers in the largest array of one chunk of replicates, 8 bytes each.
CHUNK = 2**20


def bootstrap_counts(groups: ArrayLike, replicates: int = 1000, seed: int = 0) -> Floats:
    """How often each row is drawn when as many whole groups as there are get drawn with replacement.

    Args:
        groups: (N,) the group of each row, e.g. the patient; ``np.arange(N)`` draws single rows.
        replicates: Number R of draws.
        seed: Of the draws; the same seed and groups give the same counts, so that two models can be compared on them.

    Returns:
        (R, N) whole numbers as floats. The rows of one group have one count.
    """
    return np.concatenate(list(_counts(groups, replicates, seed)))


def weighted_headline(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike, task: Task | None = None
) -> dict[str, Floats]:
    """All metrics for many weightings of the same rows at once.

    Args:
        labels: (N,) int, the true class of each row.
        probabilities: (N, C), each row sums to one.
        weights: (R, N), at least 0; e.g. :func:`bootstrap_counts`. A whole number counts a row so many times.
        task: Whose labels and answers they are; None takes those of ``multiclass``.

    Returns:
        Name of :data:`~mmfusion.evaluation.metrics.METRICS` -> (R,). Classes without weight are left out of means. NaN
        where a figure is undefined: all of them without weight, ``macro_auroc`` where one class has all the weight.

    Raises:
        ValueError: Shapes that do not match, negative weights, or labels and probabilities that
            ``classification_metrics`` refuses.
    """
    (rows, metrics), w = _opened(labels, probabilities, task), np.asarray(weights, dtype=np.float64)
    if w.ndim != 2 or w.shape[1] != len(rows) or (w < 0).any():
        raise ValueError(
            f"Weights are (R, {len(rows)}) and at least 0; got {w.shape}, the smallest {w.min(initial=0)}."
        )
    return _figures(rows, metrics, np.split(w, np.cumsum([*_chunks(len(w), len(rows))])[:-1]))[0]


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the replicates of a figure: its lower and upper end, NaN where no replicate is defined.

    Args:
        values: (R,) replicates; those that are NaN (undefined) are left out.
        level: Share of the replicates between the two ends.
    """
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval is between 0 and 1, e.g. 0.95; got {level}.")
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
        labels: (N,) int, the true class of each row.
        probabilities: (N, C), each row sums to one.
        groups: (N,) what is drawn as a whole, e.g. the patient; None draws rows.
        class_names: The C names; with them the figures of each class (``recall``, ``auroc``) are there too.
        replicates: Number of draws.
        level: Of the intervals.
        seed: Of the draws.
        task: As for :func:`weighted_headline`.
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
    """Figures with their bootstrap intervals, each replicate over whole groups.

    Args:
        figures: Weights of the rows (R, N) -> the K figures (R, K) under each weighting, NaN where undefined.
        groups: (N,) what is drawn as a whole.
        replicates: Number of draws.
        level: Of the intervals.
        seed: Of the draws.

    Returns:
        K intervals.
    """
    plain = figures(np.ones((1, len(np.asarray(groups)))))[0]
    drawn = np.concatenate([figures(w) for w in _counts(groups, replicates, seed)])
    return [_interval(value, column, level) for value, column in zip(plain, drawn.T, strict=True)]


def ratio_interval(part: ArrayLike, whole: ArrayLike, groups: ArrayLike) -> list[Interval]:
    """Means over some of the rows, e.g. a sensitivity, with 95 % intervals from 1,000 draws.

    Args:
        part: (N, K) values whose means are wanted, 0 or 1 for shares.
        whole: (N,) 1 for rows that count.
        groups: (N,) what is drawn as a whole.

    Returns:
        K intervals, undefined where no row counts.
    """
    rows = np.asarray(whole, dtype=np.float64)
    values = np.asarray(part, dtype=np.float64) * rows[:, None]
    return figure_intervals(lambda w: ratio(w @ values, np.repeat((w @ rows)[:, None], values.shape[1], 1)), groups)


def _interval(value: float, replicates: Floats, level: float) -> Interval:
    ends = (value, *interval(replicates, level))
    return Interval(*(None if np.isnan(x) else float(x) for x in ends))


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


def _opened(labels: ArrayLike, answers: ArrayLike, task: Task | None) -> tuple[Any, list[Metric]]:
    """The rows of a task, and its metrics."""
    if task is None:
        return Rows(labels, answers), [*METRICS.values()]
    return task.rows(labels, answers), [*task.metrics.values()]


def _figures(
    rows: Any, metrics: Sequence[Metric], weights: Iterable[Floats]
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Values of all metrics (R,), and of each class (R, C), over chunks of weights (r, N)."""
    parts: list[tuple[dict[str, Floats], dict[str, Floats]]] = []
    for chunk in weights:
        weighted = rows.weighted(chunk)
        by_class = {metric.class_name: metric.by_class(weighted) for metric in metrics if metric.class_name}
        parts.append(({metric.name: metric(weighted) for metric in metrics}, by_class))
    flat, by_class = (
        {k: np.concatenate([d[k] for d in chunks]) for k in chunks[0]} for chunks in zip(*parts, strict=True)
    )
    return flat, by_class
