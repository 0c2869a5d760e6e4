"""Calibration: does a probability of 0.8 come true in eight of ten cases? One temperature, fitted on validation rows.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, sec. 4.2. The temperature is applied to the
mean over test-time augmentations where there are several (Ashukha et al., Pitfalls of In-Domain Uncertainty Estimation
and Ensembling in Deep Learning, ICLR 2020), hence to probabilities: ``p^(1/T)``, scaled to sum to one, is
``softmax(logits / T)``, and ``T`` undoes ``1 / T``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from mmfusion.data import CaseTable
from mmfusion.evaluation.metrics import BINS, checked, confidence_bins, expected_calibration_error
from mmfusion.inference.predictor import Predictor

#: temperatures that are looked at. Outside, the validation rows say nothing about how sure to be.
RANGE = (0.05, 20.0)

#: fewer validation rows than this fit noise.
FEWEST = 50


def temper(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """``softmax(logits / T)`` from ``softmax(logits)``: (N, C) -> (N, C). The order of the classes stays.

    ``temper(temper(p, T), 1 / T)`` is p again.

    Raises:
        ValueError: the temperature is not above 0.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"A temperature is a number above 0; got {temperature}.")
    return softmax(_log(probabilities) / temperature, axis=-1)


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """The temperature with the smallest negative log-likelihood.

    Args:
        labels: (N,) int, of rows that the model was not trained on.
        probabilities: (N, C), not calibrated.

    Returns:
        T in :data:`RANGE`; above 1 the model is too sure. 1 where all rows are classified rightly: no error tells how
        sure to be, and the likelihood would ask for certainty.
    """
    p = np.asarray(probabilities)
    y, p = checked(labels, p, range(p.shape[-1]))
    if (p.argmax(axis=1) == y).all():
        return 1.0
    logits, rows = _log(p), np.arange(len(y))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[rows, y].mean())

    # convex in 1 / T, hence with one minimum in log T too
    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def calibrate(predictor: Predictor, cases: CaseTable, *, fitted_on: str = "val", **inference: Any) -> None:
    """Fit a temperature on validation rows and give it to the predictor, which is then saved with it.

    Args:
        predictor: its ``calibration`` is set, to None where there are fewer than :data:`FEWEST` rows.
        cases: validation rows. Rows that cannot be read are left out.
        fitted_on: what the artefact says about the rows.
        inference: further keywords of :meth:`~mmfusion.Predictor.predict_cases`.
    """
    found = predictor.predict_cases(cases, on_bad_row="skip", description="Calibrating", **inference)
    predictor.calibration = None
    if len(found.labels) >= FEWEST:
        temperature = fit_temperature(found.labels, found.uncalibrated)
        predictor.calibration = {"temperature": temperature, "fitted_on": fitted_on, "n": len(found.labels)}


def calibration_figures(
    calibration: Mapping[str, Any] | None, labels: ArrayLike, before: ArrayLike, after: ArrayLike
) -> dict[str, Any] | None:
    """What calibration did: the model's ``calibration``, and ``ece``, ``nll`` and ``brier`` ``before`` and ``after``.

    Args:
        calibration: the model's.
        labels: (N,) int.
        before: (N, C) probabilities without calibration.
        after: (N, C) probabilities with it.

    Returns:
        None where the model is not calibrated.
    """
    if calibration is None:
        return None
    plain, tempered = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    return {**calibration, "before": _figures(labels, plain), "after": _figures(labels, tempered)}


def reliability(labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS) -> dict[str, NDArray[Any]]:
    """The bins of a reliability diagram, those of the expected calibration error.

    Returns:
        ``count`` (bins,), and of each bin the mean ``confidence`` and the ``accuracy``, NaN where it is empty.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    confidence = p.max(axis=1)
    index = confidence_bins(confidence, bins)
    count = np.bincount(index, minlength=bins)
    nothing = np.full(bins, np.nan)

    def mean(values: NDArray[Any]) -> NDArray[Any]:
        total = np.bincount(index, weights=values, minlength=bins)
        return np.divide(total, count, out=nothing.copy(), where=count > 0)

    return {"count": count, "confidence": mean(confidence), "accuracy": mean(p.argmax(axis=1) == y)}


def _figures(labels: ArrayLike, probabilities: NDArray[np.float64]) -> dict[str, float]:
    y, p = checked(labels, probabilities, range(probabilities.shape[1]))
    true = p[np.arange(len(y)), y].clip(np.finfo(np.float64).eps)
    return {
        "ece": expected_calibration_error(y, p),
        "nll": float(-np.log(true).mean()),
        "brier": float(((p - np.eye(p.shape[1])[y]) ** 2).sum(axis=1).mean()),
    }


def _log(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Logits up to a constant per row."""
    p = np.asarray(probabilities, dtype=np.float64)
    # a softmax in float32 says 0 for what is less than this
    return np.log(p.clip(np.finfo(np.float32).smallest_subnormal))
