"""Selective prediction: accuracy on the most confident cases if the others are referred to a person.

Source: Geifman and El-Yaniv, Selective Classification for Deep Neural Networks, NeurIPS 2017; the excess area over its
minimum: Geifman, Uziel and El-Yaniv, Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers,
ICLR 2019.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.results import CoveragePoint, Selective

#: Coverages in the table.
COVERAGES = (0.5, 0.7, 0.8, 0.9, 1.0)


def risk_coverage(wrong: ArrayLike, confidence: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Error rate among the k most confident cases, for k from 1 to N.

    Args:
        wrong: (N,) 1 for wrong predictions.
        confidence: (N,) larger is more confident. Ties count as their mean.

    Returns:
        Coverage k / N (N,), and risk (N,).
    """
    errors, sure = np.asarray(wrong, dtype=np.float64), np.asarray(confidence)
    if errors.shape != sure.shape or errors.ndim != 1 or not len(errors):
        raise ValueError(f"Errors and confidence must be (N,) with N above 0; got {errors.shape} and {sure.shape}.")
    _, tie, size = np.unique(-sure, return_inverse=True, return_counts=True)
    ends = np.concatenate([[0], np.cumsum(size)])
    total = np.concatenate([[0.0], np.cumsum(np.bincount(tie, weights=errors))])
    k = np.arange(1, len(errors) + 1)
    return k / len(errors), np.interp(k, ends, total) / k


def selective_figures(labels: ArrayLike, probabilities: ArrayLike, named: ArrayLike | None = None) -> Selective:
    """Metrics of selective prediction with the largest probability as confidence, at :data:`COVERAGES`.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        named: (N,) predicted classes; None uses the most likely ones.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    confidence, wrong = p.max(axis=1), (p.argmax(axis=1) if named is None else np.asarray(named)) != y
    _, risk = risk_coverage(wrong, confidence)
    _, best = risk_coverage(wrong, -wrong.astype(float))
    surest = np.sort(confidence)[::-1]
    rows = [max(0, int(np.ceil(share * len(y) - 1e-9)) - 1) for share in COVERAGES]
    points = [
        CoveragePoint(share, float(surest[row]), float(1 - risk[row]))
        for share, row in zip(COVERAGES, rows, strict=True)
    ]
    return Selective(float(risk.mean()), float(risk.mean() - best.mean()), points)
