"""Evaluates a model on a table of cases: metrics, predictions and plots."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.data import CaseTable
from mmfusion.decisions import check_classes
from mmfusion.evaluation.calibration import calibration_figures
from mmfusion.evaluation.config import EvaluateConfig
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.evaluation.missing import missing_modality
from mmfusion.evaluation.operating import choose_points, choose_pooling, decision_figures
from mmfusion.evaluation.shares import mean_shares
from mmfusion.evaluation.subgroups import subgroup_figures, write_subgroups
from mmfusion.figures import Bootstrap
from mmfusion.files import write_json
from mmfusion.inference.cases import Predictions
from mmfusion.inference.grouping import by_group, write_predictions
from mmfusion.inference.predictor import Ensemble, Predictor
from mmfusion.inference.shares import EXPERTS
from mmfusion.results import Evaluation
from mmfusion.task import DEFAULT, Task, task_named

logger = logging.getLogger(__name__)

#: Classes with fewer rows have unreliable metrics.
FEW = 10

#: Keywords of all intervals.
BOOTSTRAP: dict[str, Any] = {"replicates": 1000, "level": 0.95, "seed": 0}


def measure(
    predictor: Predictor,
    cases: CaseTable,
    config: EvaluateConfig | None = None,
    *,
    validation: CaseTable | Predictions | None = None,
    output: str | Path | None = None,
    open_rows: Callable[[CaseTable], Any] | None = None,
    on_bad_row: str | None = None,
    workers: int = 0,
    **settings: Any,
) -> Evaluation:
    """Predict the labeled rows of a table and compute the metrics.

    Args:
        predictor: A trained model, an exported model, or an ensemble.
        cases: The rows; those without a label are predicted but not evaluated.
        config: Options; its model, data, split and output are ignored.
        validation: Rows to fit conformal sets and decision thresholds on, or their predictions; must differ from the
            evaluated rows.
        output: Folder for ``metrics.json``, ``predictions.csv``, ``subgroups.csv`` and the plots; None writes nothing.
        open_rows: Function that opens valid rows, e.g. as cached features; None encodes them with the processor.
        on_bad_row: ``fail`` stops at an unreadable row; ``skip`` excludes it with a warning. None uses the setting of
            ``config.dataset``.
        workers: Loader processes.
        settings: Fields that override ``config``.

    Raises:
        ValueError: A row is unreadable and ``on_bad_row`` is ``fail``, there is no labeled row, a column or class does
            not exist, or ``missing_modality`` is requested for an ensemble.
    """
    config = replace(config or EvaluateConfig(model=[], data=""), **settings)
    if config.missing_modality and isinstance(predictor, Ensemble):
        raise ValueError("missing_modality needs a single model; evaluate the members of an ensemble separately.")
    task = predictor.task
    for name in ("alarm", "operating_points", "by"):
        if getattr(config, name):
            task.need_one_class(name)
    check_classes(config.alarm, task.labels)  # before minutes of prediction
    folder = Path(output) if output else None
    inference: dict[str, Any] = {"on_bad_row": on_bad_row or config.dataset.on_bad_row, "open_rows": open_rows}
    inference |= {"batch_size": config.batch_size, "tta": config.tta, "workers": workers}
    if isinstance(validation, CaseTable):
        validation = predictor.predict_cases(validation, description="Validation rows", **inference)
    table = folder / "predictions.csv" if folder and config.by is None else None
    predicted = predictor.predict_cases(cases, output=table, **inference)
    if config.by is not None:
        predicted, validation = _by_group(predictor, predicted, validation, config)
        if folder:
            write_predictions(predicted, predictor, folder / "predictions.csv")
    found = figures_of(predicted, predictor.labels, predictor.calibration, task)
    _warn(found, task)
    if config.subgroups:
        y, p, groups = predicted.labels, predicted.probabilities, predicted.groups
        how: dict[str, Any] = {"task": task, "rename": config.dataset.renamed, **BOOTSTRAP}
        found.subgroups = subgroup_figures(predicted.frame, y, p, groups, config.subgroups, **how)
    if validation is not None:
        task.decide(found, validation, predicted, coverage=config.coverage, sensitivity=config.sensitivity)
    _decide(found, predictor, validation, predicted, config)
    if config.missing_modality:
        readable = replace(cases, frame=predicted.frame, problems=[])
        found.missing_modality = missing_modality(predictor, readable, bootstrap=BOOTSTRAP, **inference)
    if folder:
        found.folder = folder
        if found.subgroups:
            write_subgroups(found.subgroups, folder / "subgroups.csv")
        write_json(folder / "metrics.json", found.to_dict())
        task.plot(found, predicted, folder)
    return found


def figures_of(
    predicted: Predictions,
    class_names: Sequence[str],
    calibration: Mapping[str, Any] | None = None,
    task: Task | None = None,
) -> Evaluation:
    """Metrics common to all evaluations, from predictions with the given calibration; None means ``multiclass``."""
    y, p, groups, names = predicted.labels, predicted.probabilities, predicted.groups, list(class_names)
    task = task or task_named(DEFAULT, names)
    plain = task.figures(y, p, predicted.frame)
    shares = mean_shares(predicted.shares, task.positives(y))
    return Evaluation(
        figures={name: plain.pop(name) for name in task.metrics},
        **plain,
        unreadable=predicted.unreadable,
        bootstrap=Bootstrap(**BOOTSTRAP, groups=len(np.unique(groups))),
        intervals=metric_intervals(y, p, groups, class_names=names, task=task, **BOOTSTRAP),
        expert_use=shares.pop(EXPERTS, None),
        gates=shares or None,
        calibration=calibration_figures(calibration, y, predicted.uncalibrated, p, task),
        task=task.name if task.name != DEFAULT else None,
    )


def _decide(
    found: Evaluation, predictor: Predictor, fitted: Predictions | None, measured: Predictions, config: EvaluateConfig
) -> None:
    """Add decision metrics, at operating points chosen here or saved with the model."""
    points, alarm = predictor.decisions.points, list(config.alarm)
    if config.operating_points and fitted is not None:
        rules: dict[str, Any] = {"rules": config.operating_points, "prevalence": config.prevalence}
        points = choose_points(fitted, found.classes, alarm=alarm, **rules)
    if not (alarm or points or (config.report and predictor.task.one_class)):
        return
    if not alarm and len({tuple(point.alarm) for point in points}) == 1:
        alarm = points[0].alarm
    told: dict[str, Any] = {"alarm": alarm, "points": points, "prevalence": config.prevalence}
    told["each_class"] = config.report or not alarm  # takes seconds
    found.decisions = decision_figures(
        measured, found.classes, thresholds=config.benefit_thresholds, **told, **BOOTSTRAP
    )


def _by_group(
    predictor: Predictor, predicted: Predictions, validation: Predictions | None, config: EvaluateConfig
) -> tuple[Predictions, Predictions | None]:
    """Evaluated and validation rows as one prediction per group, by the pooling requested or chosen."""
    known = predictor.decisions.by_group if validation is None else choose_pooling(validation)
    pooling = config.pooling or known
    logger.info("one prediction per group: %s of its rows' probabilities", pooling)
    return by_group(predicted, pooling), validation and by_group(validation, pooling)


def _warn(found: Evaluation, task: Task) -> None:
    if found.unreadable:
        logger.warning("%d rows could not be read and are not evaluated.", found.unreadable)
    few = [f"{name} ({own['support']})" for name, own in found.per_class.items() if own["support"] < FEW]
    if few:
        logger.warning(
            "%s with fewer than %d rows, whose metrics are unreliable: %s.",
            task.noun.capitalize(),
            FEW,
            ", ".join(few),
        )
