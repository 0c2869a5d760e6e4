"""Multilabel rows under many weightings, as used by metrics."""

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.evaluation.weighted import BINS, Floats, Weighted, confidence_bins, mean_over_classes, ratio


class LabelRows:
    """Labels, probabilities and weight-independent quantities; entries of unknown labels are 0.

    Args:
        labels: (N, C) 1, 0 or NaN for unknown.
        probabilities: (N, C) in [0, 1].

    Attributes:
        known: (N, C) 1 for known labels.
        true_one_hot: (N, C) 1 for positive labels.
        predicted_one_hot: (N, C) 1 for known labels predicted positive.
        surprise: (N, C) negative log-likelihood of the label.
        squared_distance: (N, C) squared difference of probability and label.

    Raises:
        ValueError: Shapes differ, there are no rows, or probabilities are outside [0, 1].
    """

    def __init__(self, labels: ArrayLike, probabilities: ArrayLike) -> None:
        y, p = np.asarray(labels, dtype=np.float64), np.asarray(probabilities, dtype=np.float64)
        if y.ndim != 2 or y.shape != p.shape or not len(y):
            raise ValueError(f"Metrics need labels and probabilities (N, C) of one shape; got {y.shape} and {p.shape}.")
        if not ((p >= 0) & (p <= 1)).all():
            raise ValueError("Probabilities of labels must be in [0, 1].")
        self.labels, self.probabilities, self.classes = y, p, y.shape[1]
        self.known = (~np.isnan(y)).astype(np.float64)
        self.true_one_hot, self.predicted_one_hot = (y == 1).astype(np.float64), (p >= 0.5) * self.known
        of_truth = np.where(y == 1, p, 1 - p).clip(np.finfo(np.float64).eps)
        self.surprise = -np.log(of_truth) * self.known
        self.squared_distance = (1 - of_truth) ** 2 * self.known

    def __len__(self) -> int:
        return len(self.labels)

    def weighted(self, weights: Floats) -> "LabelWeighted":
        """The rows under nonnegative weights (R, N)."""
        return LabelWeighted(self, weights)

    @cached_property
    def rankings(self) -> list[tuple[NDArray[np.int64], ...]]:
        """As :attr:`mmfusion.evaluation.weighted.Rows.rankings`, over the rows where the label is known."""
        found = []
        for c in range(self.classes):
            score = self.probabilities[:, c]
            positives, negatives = np.flatnonzero(self.labels[:, c] == 1), np.flatnonzero(self.labels[:, c] == 0)
            negatives = negatives[np.argsort(score[negatives], kind="stable")]
            ends = [np.searchsorted(score[negatives], score[positives], side) for side in ("left", "right")]  # type: ignore[call-overload]
            found.append((positives, negatives, *ends))
        return found

    @cached_property
    def calibration_gaps(self) -> Floats:
        """(N, C * bins) label minus probability, in the column of label and probability bin."""
        places = np.stack([confidence_bins(p) for p in self.probabilities.T], axis=1)
        gaps = np.where(self.known > 0, np.nan_to_num(self.labels) - self.probabilities, 0)
        return (np.eye(BINS)[places] * gaps[..., None]).reshape(len(self), -1)


class LabelWeighted(Weighted):
    """R weightings of :class:`LabelRows`; per-label metrics are (R, C)."""

    def __init__(self, rows: Any, weights: Floats) -> None:
        super().__init__(rows, weights)

    def mean(self, values: Floats) -> Floats:
        """Mean over labels of the weighted mean over the rows where each is known: (N, C) -> (R,)."""
        return mean_over_classes(ratio(self.sum(values), self.known))

    @cached_property
    def known(self) -> Floats:
        """(R, C) weight of the rows where each label is known."""
        return self.sum(self.rows.known)  # type: ignore[attr-defined]

    @cached_property
    def hits(self) -> Floats:
        return self.sum(self.rows.true_one_hot * self.rows.predicted_one_hot)

    @cached_property
    def calibration_error(self) -> Floats:
        """(R,) mean over labels of their calibration errors."""
        gaps = np.abs(self.sum(self.rows.calibration_gaps)).reshape(len(self.weights), self.rows.classes, BINS)
        return mean_over_classes(ratio(gaps.sum(axis=2), self.known))

    @cached_property
    def average_precision(self) -> Floats:
        """(R, C) sum over thresholds of precision times gain in recall; ties form one threshold."""
        return np.stack([self._average_precision(c) for c in range(self.rows.classes)], axis=1)

    def _average_precision(self, c: int) -> Floats:
        rows = np.flatnonzero(self.rows.known[:, c])  # type: ignore[attr-defined]
        rows = rows[np.argsort(-self.probabilities[rows, c], kind="stable")]
        if not len(rows):
            return np.full(len(self.weights), np.nan)
        score, own = self.probabilities[rows, c], self._weights[rows]
        ends = np.append(np.flatnonzero(np.diff(score)), len(rows) - 1)
        found = np.cumsum(own * self.rows.true_one_hot[rows, c][:, None], axis=0)[ends]
        claimed = np.cumsum(own, axis=0)[ends]
        gained = np.diff(found, axis=0, prepend=0)
        return ratio((ratio(found, claimed) * gained).sum(axis=0, where=claimed > 0), found[-1])
