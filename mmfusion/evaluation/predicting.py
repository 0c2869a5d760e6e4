"""How evaluation asks a predictor for probabilities: in one place, with and without its calibration."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.data import CaseTable
from mmfusion.evaluation.temperature import temper
from mmfusion.inference import cases as inference
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Predictor


def predict_cases(predictor: Predictor, cases: CaseTable, **options: Any) -> Predictions:
    """The rows of a table that have a label and can be read, and what the predictor says about them."""
    how: dict[str, Any] = {"channels_last": predictor.channels_last, "dtype": predictor.dtype}
    return inference.predict_cases(predictor.model, predictor.processor, cases, **how, **options)


def calibration_of(predictor: Predictor) -> dict[str, Any] | None:
    """``temperature``, ``fitted_on`` and ``n``; None for a predictor that is not calibrated."""
    return getattr(predictor.model, "calibration", None)


def set_calibration(predictor: Predictor, calibration: dict[str, Any] | None) -> None:
    """Give the predictor a temperature, or take it away."""
    predictor.model.calibration = calibration  # type: ignore[union-attr]


def uncalibrated(predictor: Predictor, predictions: Predictions) -> NDArray[np.float64]:
    """(N, C) probabilities without the temperature."""
    calibration = calibration_of(predictor)
    return temper(predictions.probabilities, 1 / calibration["temperature"] if calibration else 1.0)
