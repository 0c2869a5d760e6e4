"""Calibration: does a probability of 0.8 come true in eight of ten cases?"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.data import CaseTable
from mmfusion.evaluation.metrics import metric_value
from mmfusion.evaluation.temperature import fit_temperature
from mmfusion.evaluation.weighted import BINS, confidence_bins, ratio
from mmfusion.inference.predictor import Predictor
from mmfusion.results import Calibration

#: fewer validation rows than this fit noise.
FEWEST = 50

#: metrics that a temperature changes.
CHANGED = ("ece", "nll", "brier")


def calibrate(predictor: Predictor, cases: CaseTable, *, fitted_on: str = "val", **inference: Any) -> None:
    """Fit a temperature on validation rows and give it to the predictor, which is then saved with it.

    Args:
        predictor: One trained model; its calibration becomes None where there are fewer than :data:`FEWEST` rows.
        cases: Validation rows. Rows that cannot be read are left out.
        fitted_on: What the artifact says about the rows.
        inference: Further keywords of :meth:`~mmfusion.Predictor.predict_cases`.
    """
    found = predictor.predict_cases(cases, on_bad_row="skip", description="Calibrating", **inference)
    predictor.calibration = None
    if len(found.labels) >= FEWEST:
        temperature = fit_temperature(found.labels, found.uncalibrated)
        predictor.calibration = {"temperature": temperature, "fitted_on": fitted_on, "n": len(found.labels)}


def calibration_figures(
    calibration: Mapping[str, Any] | None, labels: ArrayLike, uncalibrated: ArrayLike, calibrated: ArrayLike
) -> Calibration | None:
    """What calibration does to the metrics of :data:`CHANGED`.

    Args:
        calibration: Of the predictor; None gives None.
        labels: (N,) int.
        uncalibrated: (N, C) probabilities without the temperature.
        calibrated: (N, C) probabilities with it.
    """
    if calibration is None:
        return None
    before, after = (
        {name: value for name in CHANGED if (value := metric_value(name, labels, p)) is not None}
        for p in (uncalibrated, calibrated)
    )
    return Calibration(**calibration, before=before, after=after)


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
