"""Calibration and other prediction settings fitted on validation rows."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from mmfusion.data import CaseTable
from mmfusion.evaluation.metrics import metric_value
from mmfusion.evaluation.temperature import fit_temperature
from mmfusion.evaluation.weighted import BINS, confidence_bins, ratio
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.temperature import class_probabilities
from mmfusion.losses.logit_adjusted import log_priors
from mmfusion.results import Calibration
from mmfusion.task import Task

#: Minimum number of validation rows; fewer would fit noise.
FEWEST = 50

#: Metrics that show the effect of calibration.
CHANGED = ("ece", "nll", "brier")

#: Coverage of the conformal sets saved with the model.
COVERAGE = 0.9

#: Prior strengths that ``auto`` tries and the metric that selects one; ties go to the smallest.
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
    """Fit calibration and test-time augmentation on validation rows, and set them on the predictor.

    The probabilities are ``softmax((z + s log pi) / T)``. With ``auto``, s is the value in :data:`STRENGTHS` with the
    best :data:`CHOOSES`. T minimizes the negative log-likelihood. Test-time augmentation with ``auto`` is enabled if,
    after calibration, it lowers that loss by more than its standard error over the rows.

    Args:
        predictor: A single trained model. With fewer rows than :data:`FEWEST` nothing is fitted: its calibration is
            None, or the given strength with a temperature of 1, and ``auto`` means 0 and False.
        cases: Validation rows; unreadable ones are skipped.
        class_counts: Training rows per class, whose shares are pi; needed to restore a prior.
        prior_strength: s, or ``auto``; 0 disables it.
        tta: Whether predictions average over test-time augmentations, or ``auto``.
        fitted_on: Description of the rows, saved in the artifact.
        inference: Keywords of :meth:`~mmfusion.Predictor.predict_cases`.

    Returns:
        The calibrated predictions of the rows.
    """
    task, how = predictor.task, {}
    if task.one_class:
        log_prior = log_priors(class_counts).tolist() if prior_strength else []
        how = {"strength": prior_strength, "log_prior": log_prior}
    inference |= {"on_bad_row": "skip", "description": "Calibrating"}

    def fit(views: bool) -> tuple[dict[str, Any] | None, Predictions]:
        """Calibration with or without augmented views, and the calibrated predictions."""
        found = predictor.predict_cases(cases, tta=views, **inference)
        fitted = task.calibrated(found.labels, found.scores, **how)
        return fitted, replace(found, probabilities=task.answers(torch.from_numpy(found.scores), fitted).numpy())

    chosen = tta is True
    calibration, predicted = fit(chosen)
    if tta == "auto" and len(predicted.labels) >= FEWEST:
        other, viewed = fit(True)
        gain = task.losses(*_measured(predicted)) - task.losses(*_measured(viewed))
        if gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)):
            chosen, calibration, predicted = True, other, viewed
    if calibration is not None:
        rule = task.set_rule(*_measured(predicted), COVERAGE) if calibration["n"] else None
        calibration = {**calibration, "fitted_on": fitted_on, **({"conformal": rule} if rule else {})}
    predictor.calibration = calibration
    predictor.tta = chosen
    return predicted


def _measured(predicted: Predictions) -> tuple[NDArray[Any], NDArray[Any]]:
    return predicted.labels, predicted.probabilities


def fitted_classes(
    labels: NDArray[np.int64],
    logits: torch.Tensor,
    strength: float | str = 0.0,
    log_prior: Sequence[float] = (),
    task: Task | None = None,
) -> dict[str, Any] | None:
    """Prior strength and temperature from N labels and logits (N, C); None if neither applies."""
    enough = len(labels) >= FEWEST

    def probabilities(s: float) -> NDArray[Any]:
        put_back = {"temperature": 1.0, "prior_strength": s, "log_prior": log_prior}
        return class_probabilities(logits, put_back).numpy()

    if strength == "auto":
        tried = STRENGTHS if enough else STRENGTHS[:1]
        strength = max(tried, key=lambda s: (metric_value(CHOOSES, labels, probabilities(s), task) or 0.0, -s))
    strength = float(strength)
    prior = {"prior_strength": strength, "log_prior": list(log_prior)} if strength else {}
    if not enough:
        return {"temperature": 1.0, "n": 0, **prior} if prior else None
    return {"temperature": fit_temperature(labels, probabilities(strength)), "n": len(labels), **prior}


def calibration_figures(
    calibration: Mapping[str, Any] | None,
    labels: ArrayLike,
    uncalibrated: ArrayLike,
    calibrated: ArrayLike,
    task: Task | None = None,
) -> Calibration | None:
    """Effect of calibration on the metrics of :data:`CHANGED`, or on those of a task.

    Args:
        calibration: Calibration of the predictor; None returns None.
        labels: (N,) int.
        uncalibrated: (N, C) uncalibrated probabilities.
        calibrated: (N, C) calibrated probabilities.
        task: Task of labels and answers; None means ``multiclass``.
    """
    if calibration is None:
        return None
    changed = CHANGED if task is None else task.changed_by_calibration
    before, after = (
        {name: value for name in changed if (value := metric_value(name, labels, p, task)) is not None}
        for p in (uncalibrated, calibrated)
    )
    left_out = ("log_prior", "conformal", "update")
    known = {name: value for name, value in calibration.items() if name not in left_out}
    return Calibration(**{"temperature": None, **known}, before=before, after=after)


def reliability(labels: ArrayLike, probabilities: ArrayLike) -> dict[str, NDArray[Any]]:
    """The bins of a reliability diagram, as in the expected calibration error.

    Returns:
        ``count`` (:data:`BINS`,), and for each bin mean ``confidence`` and ``accuracy``, NaN if empty.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    index = confidence_bins(p.max(axis=1))
    count = np.bincount(index, minlength=BINS)
    values: dict[str, NDArray[Any]] = {"confidence": p.max(axis=1), "accuracy": p.argmax(axis=1) == y}
    totals = {name: np.bincount(index, value, BINS).astype(np.float64) for name, value in values.items()}
    return {"count": count} | {name: ratio(total, count.astype(np.float64)) for name, total in totals.items()}
