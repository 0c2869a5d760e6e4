"""Prediction and explanation of one case for an application."""

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from mmfusion.explanation import Explanation
    from mmfusion.inference.predictor import Predictor


@dataclass(frozen=True)
class Diagnosis:
    """Prediction for one case, with its conformal set and explanation.

    Attributes:
        label: Predicted class or grade, or positive labels joined by ``|``; None for regression.
        probability: Its probability, or the largest for several labels; None for regression.
        probabilities: Class or label -> probability; None for regression.
        inputs: Modalities used, such as ``image+text``.
        likely: Conformal set: classes, most probable first, that contain the true one with probability ``coverage``,
            on average over cases like the validation rows. None without a conformal rule.
        coverage: Target coverage of the conformal sets; None without a rule.
        explanation: The explanation; None if not requested or not supported by the model.
        notes: Modalities unlike the training rows, warnings about the case, and why it was not explained.
        numbers: Target -> ``value``, ``low`` and ``high`` for regression; else None.
    """

    label: str | None
    probability: float | None
    probabilities: dict[str, float] | None
    inputs: str
    likely: list[str] | None
    coverage: float | None
    explanation: "Explanation | None"
    notes: list[str]
    numbers: dict[str, dict[str, float | None]] | None = None


def diagnose(predictor: "Predictor", row: Mapping[str, Any], *, explain: bool = True) -> Diagnosis:
    """Predict one row, with its conformal set and its explanation.

    Args:
        predictor: A trained model.
        row: Row as in :meth:`mmfusion.Predictor.predict`.
        explain: Whether to explain the prediction, which needs several additional passes.

    Raises:
        ValueError: The row is unreadable.
    """
    explanation, failed = None, []
    with warnings_of_this_thread() as notes:
        (found,) = predictor.predict([row])
        if "error" in found:
            raise ValueError(found["error"])
        if explain:
            try:
                explanation = predictor.explain(row)
            except (ValueError, ImportError) as error:
                failed.append(f"No explanation: {error}")
    answer = {name: found.get(name) for name in ("label", "probability", "probabilities")}
    likely, coverage = class_set(predictor, answer["probabilities"] or {})
    unlike = found.get("unlike")
    strange = [f"Unlike the training rows: {unlike.replace('+', ' and ')}."] if unlike else []
    return Diagnosis(
        **answer,
        inputs=found["inputs"],
        likely=likely,
        coverage=coverage,
        explanation=explanation,
        notes=list(dict.fromkeys([*strange, *notes, *failed])),
        numbers=found.get("values"),
    )


def class_set(
    predictor: "Predictor", probabilities: Mapping[str, float]
) -> tuple[list[str], float] | tuple[None, None]:
    """The conformal set of one case, most likely first, and its target coverage; twice None without a rule."""
    inside = predictor.task.sets(np.array([list(probabilities.values())]), predictor.calibration)
    if inside is None:
        return None, None
    members = [name for name, is_in in zip(probabilities, inside[0], strict=True) if is_in]
    assert predictor.calibration is not None
    return sorted(members, key=lambda name: -probabilities[name]), predictor.calibration["conformal"]["coverage"]


@contextmanager
def warnings_of_this_thread() -> Iterator[list[str]]:
    """List of the library's warnings in this thread while the context is open."""
    found: list[str] = []
    thread, logger = threading.get_ident(), logging.getLogger("mmfusion")

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.thread == thread:
                found.append(record.getMessage())

    listener = Listener(logging.WARNING)
    logger.addHandler(listener)
    try:
        yield found
    finally:
        logger.removeHandler(listener)
