"""Figures of a classifier from labels and probabilities; classes absent from the labels do no harm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support, roc_auc_score

#: The flat figures that a trainer compares epochs by and that tables show.
HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece", "nll", "brier")

#: bins of confidence of the calibration error, and of the reliability diagram.
BINS = 15


def classification_metrics(labels: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str]) -> dict[str, Any]:
    """All figures of one evaluation, ready for JSON.

    Args:
        labels: (N,) int, the true class of each row.
        probabilities: (N, C), each row sums to one.
        class_names: the C names, in the order of the columns.

    Returns:
        ``n``, ``classes``, ``absent_classes`` (those without a row in ``labels``), the headline figures, ``per_class``
        (name -> precision, recall, f1, auroc, support) and ``confusion_matrix`` (C x C counts, rows are true classes).

        - ``balanced_accuracy``: mean recall over the classes present in ``labels``.
        - ``macro_f1``: mean over the classes that occur in labels or predictions, as scikit-learn's default.
        - ``macro_auroc``: mean one-vs-rest area over the classes that have both positive and negative rows, or None.
        - ``ece``: :func:`expected_calibration_error` over 15 bins. ``nll``: natural logarithm.
        - ``brier``: mean of the squared distance to the one-hot label, summed over classes (0 to 2).

    Raises:
        ValueError: no rows, shapes that do not match, labels outside the classes, or probabilities that are not finite
            or do not sum to one.
    """
    y, p = checked(labels, probabilities, class_names)
    count = len(class_names)
    everything = np.arange(count)
    predicted = p.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(y, predicted, labels=everything, zero_division=0)
    present = support > 0
    used = present | np.isin(everything, predicted)
    auroc = [_auroc(y == c, p[:, c]) for c in everything]
    defined = [area for area in auroc if area is not None]
    return {
        "n": len(y),
        "accuracy": float((predicted == y).mean()),
        "balanced_accuracy": float(recall[present].mean()),
        "macro_f1": float(f1[used].mean()),
        "macro_auroc": float(np.mean(defined)) if defined else None,
        "ece": expected_calibration_error(y, p),
        "nll": float(log_loss(y, p, labels=everything)),
        "brier": float(((p - np.eye(count)[y]) ** 2).sum(axis=1).mean()),
        "classes": list(class_names),
        "absent_classes": [name for name, here in zip(class_names, present, strict=True) if not here],
        "per_class": {
            name: {
                "precision": float(precision[c]),
                "recall": float(recall[c]),
                "f1": float(f1[c]),
                "auroc": auroc[c],
                "support": int(support[c]),
            }
            for c, name in enumerate(class_names)
        },
        "confusion_matrix": confusion_matrix(y, predicted, labels=everything).tolist(),
    }


def headline(metrics: dict[str, Any]) -> dict[str, float]:
    """The flat figures of :func:`classification_metrics`; those that are undefined (None) are left out."""
    return {name: metrics[name] for name in HEADLINE if metrics.get(name) is not None}


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> float:
    """Expected calibration error of the top label: equal-width bins ``(lo, hi]`` of confidence, weighted by their rows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 5.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    confidence, correct = p.max(axis=1), p.argmax(axis=1) == y
    gap = np.bincount(confidence_bins(confidence, bins), weights=correct - confidence, minlength=bins)
    return float(np.abs(gap).sum() / len(y))


def confidence_bins(confidence: ArrayLike, bins: int = BINS) -> NDArray[np.int64]:
    """The bin of each confidence: (N,) in [0, 1] -> (N,) in ``range(bins)``, equal widths ``(lo, hi]``."""
    return np.clip(np.ceil(np.asarray(confidence) * bins).astype(np.int64) - 1, 0, bins - 1)


def _auroc(positive: NDArray[np.bool_], score: NDArray[np.float64]) -> float | None:
    return float(roc_auc_score(positive, score)) if 0 < positive.sum() < len(positive) else None


def checked(
    labels: ArrayLike, probabilities: ArrayLike, class_names: Sequence[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Labels (N,) and probabilities (N, C) as arrays, the latter summing to one, or the error that says why not."""
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 2 or p.shape[1] != len(class_names) or y.shape != p.shape[:1]:
        raise ValueError(
            f"Metrics need labels (N,) and probabilities (N, {len(class_names)}) for {len(class_names)} class names; "
            f"got labels {y.shape} and probabilities {p.shape}."
        )
    if len(class_names) < 2:
        raise ValueError(f"Metrics need at least two classes; got {list(class_names)}.")
    if len(y) == 0:
        raise ValueError("There are no labelled rows to evaluate.")
    if not np.issubdtype(y.dtype, np.integer) or y.min() < 0 or y.max() >= len(class_names):
        raise ValueError(f"Labels must be integers from 0 to {len(class_names) - 1}; got {np.unique(y)[:5].tolist()}.")
    bad = np.flatnonzero(~np.isfinite(p).all(axis=1))
    if len(bad):
        raise ValueError(f"Probabilities of {len(bad)} of {len(p)} rows are not finite, the first is row {bad[0]}.")
    total = p.sum(axis=1, keepdims=True)
    off = np.flatnonzero((np.abs(total[:, 0] - 1) > 1e-2) | (p < 0).any(axis=1))
    if len(off):
        raise ValueError(
            f"Probabilities must be at least 0 and sum to 1; row {off[0]} has {p[off[0]].round(4).tolist()}."
        )
    return y, p / total
