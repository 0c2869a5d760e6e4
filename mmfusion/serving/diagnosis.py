"""Diagnosis and explanation of one case for an application."""

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
        label: The predicted class or grade, or the present labels joined by ``|``; None for numbers.
        probability: Its probability, of several labels the largest; None for numbers.
        probabilities: Class or label -> probability; None for numbers.
        inputs: Modalities that the prediction used, such as ``image+text``.
        likely: The conformal set: classes, most probable first, that contain the true one with probability
            ``coverage``, on average over cases like the validation rows. None if the model has no conformal rule.
        coverage: Requested coverage of the conformal sets; None without a rule.
        explanation: The explanation; None if not requested, or not possible for this model.
        notes: Modalities that are unlike the training rows, warnings about the case, and why it was not explained.
        numbers: Target -> ``value``, ``low`` and ``high``, of a model that predicts numbers; else None.
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
        row: Row as :meth:`mmfusion.Predictor.predict` takes it.
        explain: Whether to explain the prediction, which needs several further passes of the model.

    Raises:
        ValueError: The row cannot be read.
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
                failed.append(f"There is no explanation: {error}")
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
    """The conformal set of one case, likeliest first, and its wanted coverage; None twice where there is no rule."""
    inside = predictor.task.sets(np.array([list(probabilities.values())]), predictor.calibration)
    if inside is None:
        return None, None
    members = [name for name, is_in in zip(probabilities, inside[0], strict=True) if is_in]
    assert predictor.calibration is not None
    return sorted(members, key=lambda name: -probabilities[name]), predictor.calibration["conformal"]["coverage"]


@contextmanager
def warnings_of_this_thread() -> Iterator[list[str]]:
    """A list that fills with what the library warns of in this thread, as long as the context is open."""
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
