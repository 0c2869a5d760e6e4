"""The same rows under many weightings, as used by metrics. Each intermediate result is computed once.

Weights replace copies of rows: a weight of 2 counts a row twice. Weights of 1 give the plain metric.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Bins of confidence of the calibration error and the reliability diagram.
BINS = 15


class Rows:
    """Labels, probabilities and quantities that do not depend on the weights.

    Args:
        labels: (N,) int, true classes.
        probabilities: (N, C), each row sums to 1.

    Attributes:
        classes: C.
        predicted: (N,) indices of the top classes.
        confidence: (N,) largest probability of each row.
        correct: (N,) 1 if the top class is the true one.
        true_one_hot: (N, C) one-hot true classes.
        predicted_one_hot: (N, C) one-hot top classes.
        surprise: (N,) negative log probability of the true class, clipped as in scikit-learn's ``log_loss``.
        squared_distance: (N,) squared distance from the one-hot label, summed over classes.

    Raises:
        ValueError: See :func:`checked`.
    """

    def __init__(self, labels: ArrayLike, probabilities: ArrayLike) -> None:
        p = np.asarray(probabilities)
        self.labels, self.probabilities = y, p = checked(labels, p, range(p.shape[-1]))
        self.classes, self.predicted, self.confidence = p.shape[1], self.decided(p), p.max(axis=1)
        self.correct = (self.predicted == y).astype(np.float64)
        self.true_one_hot, self.predicted_one_hot = np.eye(self.classes)[y], np.eye(self.classes)[self.predicted]
        self.surprise = -np.log(p[np.arange(len(p)), y].clip(np.finfo(np.float64).eps))
        self.squared_distance = ((p - self.true_one_hot) ** 2).sum(axis=1)

    def __len__(self) -> int:
        return len(self.labels)

    def decided(self, p: Floats) -> NDArray[np.int64]:
        """(N,) predicted class of each row."""
        return p.argmax(axis=1)

    def weighted(self, weights: Floats) -> "Weighted":
        """The rows under nonnegative weights (R, N)."""
        return Weighted(self, weights)

    @cached_property
    def calibration_gaps(self) -> Floats:
        """(N, bins) accuracy minus confidence of each row, in the column of its bin."""
        return np.eye(BINS)[confidence_bins(self.confidence)] * (self.correct - self.confidence)[:, None]

    @cached_property
    def rankings(self) -> list[tuple[NDArray[np.int64], ...]]:
        """Per class: its rows, the others by increasing score, and how many of those score lower, and not higher."""
        return [self._ranking(self.labels == c, self.probabilities[:, c]) for c in range(self.classes)]

    @staticmethod
    def _ranking(positive: NDArray[np.bool_], score: Floats) -> tuple[NDArray[np.int64], ...]:
        positives, negatives = np.flatnonzero(positive), np.flatnonzero(~positive)
        negatives = negatives[np.argsort(score[negatives], kind="stable")]
        known, wanted = score[negatives], score[positives]
        return positives, negatives, np.searchsorted(known, wanted, "left"), np.searchsorted(known, wanted, "right")


class Weighted:
    """R weightings of the same rows.

    Args:
        rows: N rows of C classes.
        weights: (R, N), nonnegative.

    Attributes:
        rows: The rows, unweighted.
        labels: (N,) true class indices.
        probabilities: (N, C).
        weights: (R, N).
    """

    def __init__(self, rows: Rows, weights: Floats) -> None:
        self.rows, self.labels, self.probabilities = rows, rows.labels, rows.probabilities
        # rows first, so that selecting and adding rows runs along contiguous replicates
        self._weights = np.ascontiguousarray(weights.T)
        self.weights = self._weights.T

    def sum(self, values: Floats) -> Floats:
        """Weighted sums over rows: (N,) -> (R,), (N, K) -> (R, K)."""
        return self.weights @ values

    def mean(self, values: Floats) -> Floats:
        """Weighted means of a per-row quantity: (N,) -> (R,); NaN if no row has weight."""
        return ratio(self.sum(values), self.total)

    @cached_property
    def total(self) -> Floats:
        """(R,) sum of the weights."""
        return self._weights.sum(axis=0)

    @cached_property
    def support(self) -> Floats:
        """(R, C) weight of the rows of each class."""
        return self.sum(self.rows.true_one_hot)

    @cached_property
    def claimed(self) -> Floats:
        """(R, C) weight of the rows predicted as each class."""
        return self.sum(self.rows.predicted_one_hot)

    @cached_property
    def hits(self) -> Floats:
        """(R, C) weight of the correctly predicted rows of each class."""
        return self.sum(self.rows.true_one_hot * self.rows.correct[:, None])

    @cached_property
    def recall(self) -> Floats:
        """(R, C), NaN for a class without rows."""
        return ratio(self.hits, self.support)

    @cached_property
    def precision(self) -> Floats:
        """(R, C), NaN for a class that is never predicted."""
        return ratio(self.hits, self.claimed)

    @cached_property
    def f1(self) -> Floats:
        """(R, C), NaN for a class without rows that is never predicted."""
        return ratio(2 * self.hits, self.support + self.claimed)

    @cached_property
    def calibration_error(self) -> Floats:
        """(R,) expected calibration error of the top class."""
        # the sum of the gaps in a bin is its weight times the gap of its means
        return ratio(np.abs(self.sum(self.rows.calibration_gaps)).sum(axis=1), self.total)

    @cached_property
    def auroc(self) -> Floats:
        """(R, C) share of pairs of a row of the class and another in which the former scores higher, ties count 0.5."""
        return np.stack([self._auroc(*ranking) for ranking in self.rows.rankings], axis=1)

    def _auroc(self, positives: Any, negatives: Any, less: Any, not_more: Any) -> Floats:
        below = np.zeros((len(negatives) + 1, self._weights.shape[1]))
        np.cumsum(self._weights[negatives], axis=0, out=below[1:])
        own = self._weights[positives]
        won = (own * (below[less] + below[not_more])).sum(axis=0) / 2
        return ratio(won, own.sum(axis=0) * below[-1])


def ratio(part: Floats, whole: Floats) -> Floats:
    """Elementwise quotient; NaN where the denominator is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def mean_over_classes(values: Floats) -> Floats:
    """Mean over the classes (last axis) with a defined value: (R, C) -> (R,)."""
    defined = ~np.isnan(values)
    return ratio(np.where(defined, values, 0).sum(axis=1), defined.sum(axis=1).astype(np.float64))


def confidence_bins(confidence: ArrayLike) -> NDArray[np.int64]:
    """Bin of each confidence: (N,) in [0, 1] -> (N,) in ``range(BINS)``, equal widths ``(lo, hi]``."""
    return np.clip(np.ceil(np.asarray(confidence) * BINS).astype(np.int64) - 1, 0, BINS - 1)


def checked(labels: ArrayLike, probabilities: ArrayLike, names: Sequence[Any]) -> tuple[NDArray[np.int64], Floats]:
    """Labels (N,) and probabilities (N, C) as arrays; the latter sum to 1.

    Raises:
        ValueError: There are no rows, shapes do not match, labels are out of range, or probabilities are not finite or
            do not sum to 1.
    """
    y, p, count = np.asarray(labels), np.asarray(probabilities, dtype=np.float64), len(names)
    if p.ndim != 2 or p.shape[1] != count or y.shape != p.shape[:1]:
        raise ValueError(
            f"Metrics need labels (N,) and probabilities (N, {count}) for {count} class names; "
            f"got labels {y.shape} and probabilities {p.shape}."
        )
    if count < 2:
        raise ValueError(f"Metrics need at least two classes; got {list(names)}.")
    if len(y) == 0:
        raise ValueError("There are no labeled rows to evaluate.")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= count:
        raise ValueError(f"Labels must be integers from 0 to {count - 1}; got {np.unique(y)[:5].tolist()}.")
    if len(bad := np.flatnonzero(~np.isfinite(p).all(axis=1))):
        raise ValueError(f"Probabilities of {len(bad)} of {len(p)} rows are not finite, first in row {bad[0]}.")
    total = p.sum(axis=1, keepdims=True)
    if len(off := np.flatnonzero((np.abs(total[:, 0] - 1) > 1e-2) | (p < 0).any(axis=1))):
        raise ValueError(
            f"Probabilities must be at least 0 and sum to 1; row {off[0]} has {p[off[0]].round(4).tolist()}."
        )
    return y, p / total
