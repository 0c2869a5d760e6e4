"""Calibration: does a probability of 0.8 come true in eight of ten cases? And what else validation rows choose."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mmfusion.data import CaseTable
from mmfusion.evaluation.conformal import fit_conformal
from mmfusion.evaluation.metrics import metric_value
from mmfusion.evaluation.temperature import as_logits, fit_temperature, row_losses
from mmfusion.evaluation.weighted import BINS, confidence_bins, ratio
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.temperature import class_probabilities
from mmfusion.losses.logit_adjusted import log_priors
from mmfusion.results import Calibration

#: fewer validation rows than this fit noise.
FEWEST = 50

#: metrics that a calibration is told by.
CHANGED = ("ece", "nll", "brier")

#: wanted share of the sets of classes that hold the true one; they are saved with the model.
COVERAGE = 0.9

#: strengths of the prior that ``auto`` tries, and the metric that chooses; of equal ones the smallest is taken.
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
CHOOSES = "macro_f1"


def calibrate(
    predictor: Predictor,
    cases: CaseTable,
    *,
    class_counts: Sequence[float] = (),
    prior_strength: float | str = 0.0,
    tta: bool | str = False,
    fitted_on: str = "val",
    **inference: Any,
) -> Predictions:
    """Choose on validation rows how a model predicts, and give it to the predictor, which is then saved with it.

    The probabilities are ``softmax((z + s log pi) / T)``. With ``auto`` the strength s is the one of :data:`STRENGTHS`
    with the best :data:`CHOOSES`. T is the temperature of the smallest negative log-likelihood. Test-time views with
    ``auto`` are taken where, calibrated, they lower that likelihood by more than its standard error over the rows.

    Args:
        predictor: One trained model. With fewer rows than :data:`FEWEST` nothing is fitted: its calibration is None, or
            the given strength with a temperature of 1, and ``auto`` is 0 and False.
        cases: Validation rows. Rows that cannot be read are left out.
        class_counts: Training rows of each class, whose shares are pi; needed where a prior is put back.
        prior_strength: s, or ``auto``; 0 puts nothing back.
        tta: Whether predictions average over test-time augmentations, or ``auto``.
        fitted_on: What the artifact says about the rows.
        inference: Further keywords of :meth:`~mmfusion.Predictor.predict_cases`.

    Returns:
        What the predictor now says of the rows.
    """
    log_prior = log_priors(class_counts).tolist() if prior_strength else []
    inference |= {"on_bad_row": "skip", "description": "Calibrating"}

    def fit(views: bool) -> tuple[dict[str, Any] | None, Predictions]:
        """The calibration of predictions with or without views, and these predictions with it."""
        found = predictor.predict_cases(cases, tta=views, **inference)
        logits = torch.from_numpy(as_logits(found.uncalibrated))
        fitted = _fitted(found.labels, logits, prior_strength, log_prior)
        return fitted, replace(found, probabilities=class_probabilities(logits, fitted).numpy())

    chosen = tta is True
    calibration, predicted = fit(chosen)
    if tta == "auto" and len(predicted.labels) >= FEWEST:
        other, viewed = fit(True)
        own, others = (row_losses(each.labels, each.probabilities) for each in (predicted, viewed))
        gain = own - others
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            chosen, calibration, predicted = True, other, viewed
    if calibration is not None:
        rule = {"conformal": _class_sets(predicted)} if calibration["n"] else {}
        calibration = {**calibration, "fitted_on": fitted_on, **rule}
    predictor.calibration = calibration
    predictor.tta = chosen
    return predicted


def _class_sets(predicted: Predictions) -> dict[str, Any]:
    """The rule for sets of classes that hold the true one with a probability of :data:`COVERAGE`, as plain values."""
    rule = fit_conformal(predicted.labels, predicted.probabilities, coverage=COVERAGE)
    return {"coverage": COVERAGE, "method": rule.method, "thresholds": rule.thresholds.tolist()}


def _fitted(
    labels: NDArray[np.int64], logits: torch.Tensor, strength: float | str, log_prior: list[float]
) -> dict[str, Any] | None:
    """Strength of the prior and temperature from N labels and logits (N, C); None where nothing is to be applied."""
    enough = len(labels) >= FEWEST

    def probabilities(s: float) -> NDArray[Any]:
        put_back = {"temperature": 1.0, "prior_strength": s, "log_prior": log_prior}
        return class_probabilities(logits, put_back).numpy()

    if strength == "auto":
        tried = STRENGTHS if enough else STRENGTHS[:1]
        strength = max(tried, key=lambda s: (metric_value(CHOOSES, labels, probabilities(s)) or 0.0, -s))
    strength = float(strength)
    prior = {"prior_strength": strength, "log_prior": log_prior} if strength else {}
    if not enough:
        return {"temperature": 1.0, "n": 0, **prior} if prior else None
    return {"temperature": fit_temperature(labels, probabilities(strength)), "n": len(labels), **prior}


def calibration_figures(
    calibration: Mapping[str, Any] | None, labels: ArrayLike, uncalibrated: ArrayLike, calibrated: ArrayLike
) -> Calibration | None:
    """What calibration does to the metrics of :data:`CHANGED`.

    Args:
        calibration: Of the predictor; None gives None.
        labels: (N,) int.
        uncalibrated: (N, C) probabilities as the network gives them.
        calibrated: (N, C) calibrated ones.
    """
    if calibration is None:
        return None
    before, after = (
        {name: value for name in CHANGED if (value := metric_value(name, labels, p)) is not None}
        for p in (uncalibrated, calibrated)
    )
    left_out = ("log_prior", "conformal", "update")
    known = {name: value for name, value in calibration.items() if name not in left_out}
    return Calibration(**known, before=before, after=after)


def reliability(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, NDArray[Any]]:
    """The bins of a reliability diagram, those of the expected calibration error.

    Returns:
        ``count`` (:data:`BINS`,), and of each bin the mean ``confidence`` and the ``accuracy``, NaN where it is empty.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    index = confidence_bins(p.max(axis=1))
    count = np.bincount(index, minlength=BINS)
    values: dict[str, NDArray[Any]] = {"confidence": p.max(axis=1), "accuracy": p.argmax(axis=1) == y}
    totals = {name: np.bincount(index, value, BINS).astype(np.float64) for name, value in values.items()}
    return {"count": count} | {name: ratio(total, count.astype(np.float64)) for name, total in totals.items()}
