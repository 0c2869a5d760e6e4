"""Operating points and poolings chosen on validation rows, and what acting on a model is worth on others."""

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
    """One operating point for each rule, of the classes to be alarmed about; without these of each class.

    A rule that cannot be kept, because validation rows are lacking, is told and left out.

    Raises:
        ValueError: An unknown class or rule.
    """
    check_classes(alarm, class_names)
    found = []
    for text in rules:
        for classes in [list(alarm)] if alarm else [[name] for name in class_names]:
            positive, score = _sides(validation, class_names, classes)
            threshold = rule_threshold(positive, score, Rule.parse(text), prevalence)
            if threshold is None:
                logger.warning("no threshold of %s keeps %s on %d validation rows", "+".join(classes), text, len(score))
                continue
            found.append(OperatingPoint(classes, text, threshold, len(score), prevalence))
    return found


def choose_pooling(validation: Predictions) -> str:
    """The pooling under which validation groups are likelier, the mean where both are alike.

    The mean too where rows of a group have different labels, as those of a patient with several lesions: such groups
    have no one answer.
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
    """Net benefit, calibration lines and what operating points do, on rows that the points were not chosen on.

    Args:
        measured: The rows.
        class_names: The C names.
        alarm: Classes that are acted on together; without any there is no net benefit.
        thresholds: Probabilities from which on one would act.
        points: Operating points.
        prevalence: Share of the alarming classes that figures are told for; None for that of the rows.
        each_class: Whether to tell the calibration of each class too.
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
        if prevalence is None:  # from counts, which are defined where one kind of rows is missing
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
    """Whether each row is of one of the classes (N,), and their summed probability (N,)."""
    positions = [list(class_names).index(name) for name in classes]
    return np.isin(predicted.labels, positions), alarm_score(predicted.probabilities, classes, class_names)
