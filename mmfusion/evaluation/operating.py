"""Operating points and pooling chosen on validation rows, and decision metrics on other rows."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.decisions import POOLINGS, DecisionResult, OperatingPoint, PointFigures, Rule, check_classes
from mmfusion.evaluation.benefit import benefit_figures, calibration_lines
from mmfusion.evaluation.intervals import figure_intervals
from mmfusion.evaluation.temperature import row_losses
from mmfusion.evaluation.thresholds import rule_threshold
from mmfusion.evaluation.weighted import Floats, ratio
from mmfusion.inference.alarms import alarm_score
from mmfusion.inference.cases import Predictions
from mmfusion.inference.grouping import by_group

logger = logging.getLogger(__name__)


def choose_points(
    validation: Predictions,
    class_names: Sequence[str],
    *,
    alarm: Sequence[str],
    rules: Sequence[str],
    prevalence: float | None = None,
) -> list[OperatingPoint]:
    """One operating point per rule for the alarm classes, or for each class if there are none.

    A rule that the validation rows cannot satisfy is logged and skipped.

    Raises:
        ValueError: A class or rule is unknown.
    """
    check_classes(alarm, class_names)
    found = []
    for text in rules:
        for classes in [list(alarm)] if alarm else [[name] for name in class_names]:
            positive, score = _sides(validation, class_names, classes)
            threshold = rule_threshold(positive, score, Rule.parse(text), prevalence)
            if threshold is None:
                logger.warning("no threshold of %s meets %s on %d validation rows", "+".join(classes), text, len(score))
                continue
            found.append(OperatingPoint(classes, text, threshold, len(score), prevalence))
    return found


def choose_pooling(validation: Predictions) -> str:
    """The pooling with the higher likelihood of the validation groups; the mean if equal.

    Also the mean if rows of a group have different labels, such as a patient with several lesions, since such groups
    have no single label.
    """
    answers = {*zip(validation.groups, validation.labels, strict=True)}
    if not answers or len(answers) > len(np.unique(validation.groups)):
        return "mean"

    def loss(pooling: str) -> float:
        found = by_group(validation, pooling)
        return float(row_losses(found.labels, found.probabilities).mean())

    return min(POOLINGS, key=loss)


def decision_figures(
    measured: Predictions,
    class_names: Sequence[str],
    *,
    alarm: Sequence[str],
    thresholds: Sequence[float],
    points: Sequence[OperatingPoint] = (),
    prevalence: float | None = None,
    each_class: bool = True,
    **bootstrap: Any,
) -> DecisionResult:
    """Net benefit, calibration slopes and operating-point metrics on rows that the points were not chosen on.

    Args:
        measured: The rows.
        class_names: The C names.
        alarm: Classes treated as one decision; empty omits the net benefit.
        thresholds: Probability thresholds.
        points: Operating points.
        prevalence: Prevalence of the alarm classes to assume; None uses that of the rows.
        each_class: Whether to include the calibration of each class.
        bootstrap: ``replicates``, ``level`` and ``seed``.
    """
    check_classes(alarm, class_names)
    names, groups = list(class_names), measured.groups
    singles = [[c] for c in range(len(names))] if each_class else []
    positions = [names.index(name) for name in alarm]
    lines = calibration_lines(
        measured.labels, measured.probabilities, groups, [*([positions] if alarm else []), *singles], **bootstrap
    )
    joined = lines.pop(0) if alarm else None
    benefit, observed = [], None
    if alarm:
        positive, score = _sides(measured, names, alarm)
        observed = float(positive.mean())
        benefit = benefit_figures(positive, score, groups, thresholds, prevalence, **bootstrap)
    told = [point_figures(point, measured, names, prevalence, **bootstrap) for point in points]
    per_class = dict(zip(names, lines, strict=False))
    return DecisionResult(list(alarm), observed, prevalence, benefit, joined, per_class, told)


def point_figures(
    point: OperatingPoint,
    measured: Predictions,
    class_names: Sequence[str],
    prevalence: float | None = None,
    **bootstrap: Any,
) -> PointFigures:
    """Sensitivity, specificity, predictive values and alarms per 1,000 of an operating point, with intervals."""
    positive, score = _sides(measured, class_names, point.alarm)
    y, alarm = positive.astype(np.float64), (score >= point.threshold).astype(np.float64)

    def figures(w: Floats) -> Floats:
        with_it, without = w @ y, w @ (1 - y)
        sensitivity, false = ratio(w @ (alarm * y), with_it), ratio(w @ (alarm * (1 - y)), without)
        if prevalence is None:  # from counts, defined even if one kind of rows is missing
            total = with_it + without
            hit, miss = ratio(w @ (alarm * y), total), ratio(w @ ((1 - alarm) * y), total)
            wrong, quiet = ratio(w @ (alarm * (1 - y)), total), ratio(w @ ((1 - alarm) * (1 - y)), total)
        else:
            hit, miss = prevalence * sensitivity, prevalence * (1 - sensitivity)
            wrong, quiet = (1 - prevalence) * false, (1 - prevalence) * (1 - false)
        values = ratio(hit, hit + wrong), ratio(quiet, quiet + miss)
        return np.stack([sensitivity, 1 - false, *values, 1000 * (hit + wrong)], axis=1)

    return PointFigures(point, *figure_intervals(figures, measured.groups, **bootstrap))


def _sides(
    predicted: Predictions, class_names: Sequence[str], classes: Sequence[str]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Whether each row is in one of the classes (N,), and their summed probability (N,)."""
    positions = [list(class_names).index(name) for name in classes]
    return np.isin(predicted.labels, positions), alarm_score(predicted.probabilities, classes, class_names)
