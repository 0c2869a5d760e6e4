"""Uncertainty of figures: the bootstrap over whole groups, with weights in place of copies of rows.

A patient (lesion, study) who is drawn twice counts twice, with all rows. Drawing single rows instead would pretend that
several pictures of one lesion are independent, and the intervals would be too narrow.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13 (percentile interval); Davison and Hinkley,
Bootstrap Methods and their Application, 1997, sec. 3.8 (whole groups are drawn).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.evaluation.metrics import BINS, checked, confidence_bins

#: numbers in the largest array of one chunk of replicates, 8 bytes each.
CHUNK = 2**20

Floats = NDArray[np.float64]


def bootstrap_counts(groups: ArrayLike, replicates: int = 1000, seed: int = 0) -> Floats:
    """How often each row is drawn when as many whole groups as there are get drawn with replacement.

    Args:
        groups: (N,) the group of each row, e.g. the patient; ``np.arange(N)`` draws single rows.
        replicates: number R of draws.
        seed: of the draws; the same seed and groups give the same counts, so that two models can be compared on them.

    Returns:
        (R, N) whole numbers as floats. The rows of one group have one count.
    """
    return np.concatenate(list(_counts(groups, replicates, seed)))


def weighted_headline(labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike) -> dict[str, Floats]:
    """The headline figures for many weightings of the same rows at once.

    Args:
        labels: (N,) int, the true class of each row.
        probabilities: (N, C), each row sums to one.
        weights: (R, N), at least 0; e.g. :func:`bootstrap_counts`. A whole number counts a row so many times.

    Returns:
        Name of :data:`~mmfusion.evaluation.metrics.HEADLINE` -> (R,), defined as in
        :func:`~mmfusion.evaluation.metrics.classification_metrics`: classes without weight are left out of means. NaN
        where a figure is undefined: all of them without weight, ``macro_auroc`` where one class has all the weight.

    Raises:
        ValueError: shapes that do not match, negative weights, or labels and probabilities that
            ``classification_metrics`` refuses.
    """
    flat, _ = _weighted(labels, probabilities, weights)
    return flat


def interval(values: ArrayLike, level: float = 0.95) -> tuple[float, float]:
    """Percentile interval of the replicates of a figure.

    Args:
        values: (R,) replicates; those that are NaN (undefined) are left out.
        level: share of the replicates between the two ends.

    Returns:
        Lower and upper end, NaN where no replicate is defined.
    """
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval is between 0 and 1, e.g. 0.95; got {level}.")
    defined = np.asarray(values, dtype=np.float64)
    defined = defined[~np.isnan(defined)]
    if len(defined) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
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
) -> dict[str, dict[str, Any]]:
    """Every headline figure with its bootstrap interval, ready for JSON.

    Args:
        labels: (N,) int, the true class of each row.
        probabilities: (N, C), each row sums to one.
        groups: (N,) what is drawn as a whole, e.g. the patient; None draws rows.
        class_names: the C names; with them the figures of each class are there too.
        replicates: number of draws.
        level: of the intervals.
        seed: of the draws.

    Returns:
        Name -> ``{"value", "low", "high"}``, and with ``class_names`` the entry ``per_class``: class -> ``recall``
        (sensitivity) and ``auroc`` -> the same three. Undefined figures and ends are None.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    drawn = [
        _weighted(y, p, counts) for counts in _counts(np.arange(len(y)) if groups is None else groups, replicates, seed)
    ]
    flat, by_class = _weighted(y, p, np.ones((1, len(y))))

    result: dict[str, dict[str, Any]] = {
        name: _summary(value[0], np.concatenate([part[0][name] for part in drawn]), level)
        for name, value in flat.items()
    }
    if class_names is not None:
        columns = {name: np.concatenate([part[1][name] for part in drawn]) for name in by_class}
        result["per_class"] = {
            label: {name: _summary(value[0, c], columns[name][:, c], level) for name, value in by_class.items()}
            for c, label in enumerate(class_names)
        }
    return result


_ENDS = ("value", "low", "high")


def ratio_interval(
    part: ArrayLike,
    whole: ArrayLike,
    groups: ArrayLike,
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> list[dict[str, float | None]]:
    """Means over some of the rows, e.g. a sensitivity, with bootstrap intervals.

    Args:
        part: (N, K) values whose means are wanted, 0 or 1 for shares.
        whole: (N,) 1 for rows that count.
        groups: (N,) what is drawn as a whole.
        replicates: number of draws.
        level: of the intervals.
        seed: of the draws.

    Returns:
        K times ``{"value", "low", "high"}``, None where no row counts.
    """
    rows = np.asarray(whole, dtype=np.float64)
    values = np.asarray(part, dtype=np.float64) * rows[:, None]
    drawn = np.concatenate(
        [
            _ratio(w @ values, np.repeat((w @ rows)[:, None], values.shape[1], 1))
            for w in _counts(groups, replicates, seed)
        ]
    )
    plain = _ratio(values.sum(axis=0), np.full(values.shape[1], rows.sum()))
    return [_summary(value, column, level) for value, column in zip(plain, drawn.T, strict=True)]


def interval_text(figure: dict[str, Any], digits: int = 3) -> str:
    """A figure of :func:`metric_intervals` as a reader sees it: ``0.804 [0.786, 0.822]``, or ``undefined``."""
    if figure["value"] is None:
        return "undefined"
    value, low, high = (f"{figure[name]:.{digits}f}" for name in _ENDS)
    return f"{value} [{low}, {high}]"


def _summary(value: float, values: Floats, level: float) -> dict[str, float | None]:
    low, high = interval(values, level)
    return {name: None if np.isnan(x) else float(x) for name, x in zip(_ENDS, (value, low, high), strict=True)}


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


def _weighted(
    labels: ArrayLike, probabilities: ArrayLike, weights: ArrayLike
) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Headline figures (R,), and those of each class (R, C)."""
    p = np.asarray(probabilities)
    y, p = checked(labels, p, range(p.shape[-1]))
    w = np.asarray(weights, dtype=np.float64)
    if w.ndim != 2 or w.shape[1] != len(y) or (w < 0).any():
        raise ValueError(f"Weights are (R, {len(y)}) and at least 0; got {w.shape}, the smallest {w.min(initial=0)}.")
    parts, start = [], 0
    for size in _chunks(len(w), len(y)):
        # rows first: picking and adding up rows of a chunk then runs along its contiguous replicates
        parts.append(_figures(y, p, np.ascontiguousarray(w[start : start + size].T)))
        start += size
    flat, by_class = (
        {name: np.concatenate([part[kind][name] for part in parts]) for name in parts[0][kind]} for kind in (0, 1)
    )
    return flat, by_class


def _figures(y: NDArray[np.int64], p: Floats, w: Floats) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """The figures of one chunk, weights (N, R)."""
    classes = np.eye(p.shape[1])
    predicted = p.argmax(axis=1)
    right = (predicted == y).astype(np.float64)
    confidence = p.max(axis=1)
    bins = np.eye(BINS)[confidence_bins(confidence)]
    # the clip is scikit-learn's log_loss
    surprise = -np.log(p[np.arange(len(y)), y].clip(np.finfo(np.float64).eps))
    distance = ((p - classes[y]) ** 2).sum(axis=1)

    total = w.sum(axis=0)
    support, claimed = w.T @ classes[y], w.T @ classes[predicted]
    hits = w.T @ (classes[y] * right[:, None])
    recall = _ratio(hits, support)
    f1 = _ratio(2 * hits, support + claimed)
    auroc = np.stack([_auroc(y == c, p[:, c], w) for c in range(p.shape[1])], axis=1)
    flat = {
        "accuracy": _ratio(w.T @ right, total),
        "balanced_accuracy": _mean(recall),
        "macro_f1": _mean(f1),
        "macro_auroc": _mean(auroc),
        "ece": _ratio(np.abs(w.T @ (bins * (right - confidence)[:, None])).sum(axis=1), total),
        "nll": _ratio(w.T @ surprise, total),
        "brier": _ratio(w.T @ distance, total),
    }
    return flat, {"recall": recall, "auroc": auroc}


def _auroc(positive: NDArray[np.bool_], score: Floats, w: Floats) -> Floats:
    """Share of the weighted pairs in which the positive row scores higher, ties counted half: (R,)."""
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(score[negatives], kind="stable")]
    below = np.zeros((len(negatives) + 1, w.shape[1]))
    np.cumsum(w[negatives], axis=0, out=below[1:])
    first = np.searchsorted(score[negatives], score[positive], side="left")
    behind = np.searchsorted(score[negatives], score[positive], side="right")
    mine = w[positive]
    won = (mine * (below[first] + below[behind])).sum(axis=0) / 2
    return _ratio(won, mine.sum(axis=0) * below[-1])


def _ratio(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: Floats) -> Floats:
    """Mean over the classes (last axis) where the figure is defined."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(np.float64))
