"""Measure a model on a table of cases: figures, predictions and plots."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.data import CaseTable
from mmfusion.evaluation.calibration import calibration_figures
from mmfusion.evaluation.config import EvaluateConfig
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.evaluation.missing import missing_modality
from mmfusion.evaluation.shares import mean_shares
from mmfusion.evaluation.subgroups import subgroup_figures, write_subgroups
from mmfusion.files import write_json
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Ensemble, Predictor
from mmfusion.inference.shares import EXPERTS
from mmfusion.results import Bootstrap, Evaluation
from mmfusion.task import DEFAULT, Task, task_named

logger = logging.getLogger(__name__)

#: fewer rows of a class than this make its figures a matter of chance.
FEW = 10

#: keywords of all intervals.
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
    """Predict the labelled rows of a table and compare.

    Args:
        predictor: A trained model, an exported one, or an ensemble.
        cases: The rows; those without a label are predicted, and count in no figure.
        config: What to measure and how; its model, data, split and output are not looked at.
        validation: Rows that conformal sets and decision thresholds are fitted on, or the predictions of them; other
            rows than those measured.
        output: Folder for ``metrics.json``, ``predictions.csv``, ``subgroups.csv`` and the plots; None writes nothing.
        open_rows: Makes the data set of sound rows, e.g. of cached features; None encodes them with the processor.
        on_bad_row: ``fail`` stops at a row that cannot be read; ``skip`` leaves it out of the figures, and says so.
            None does as ``config.dataset`` says.
        workers: Loader processes.
        settings: Fields of the configuration that differ from ``config``.

    Raises:
        ValueError: A row cannot be read and ``on_bad_row`` is ``fail``, there is no labelled row, or no such column; or
            ``missing_modality`` of an ensemble.
    """
    config = replace(config or EvaluateConfig(model=[], data=""), **settings)
    if config.missing_modality and isinstance(predictor, Ensemble):
        raise ValueError("missing_modality looks into one model; evaluate the models of an ensemble one by one.")
    folder = Path(output) if output else None
    inference: dict[str, Any] = {"on_bad_row": on_bad_row or config.dataset.on_bad_row, "open_rows": open_rows}
    inference |= {"batch_size": config.batch_size, "tta": config.tta, "workers": workers}
    predicted = predictor.predict_cases(cases, output=folder / "predictions.csv" if folder else None, **inference)
    task = predictor.task
    found = figures_of(predicted, predictor.labels, predictor.calibration, task)
    _warn(found)
    if config.subgroups:
        y, p, groups = predicted.labels, predicted.probabilities, predicted.groups
        found.subgroups = subgroup_figures(predicted.frame, y, p, groups, config.subgroups, task=task, **BOOTSTRAP)
    if isinstance(validation, CaseTable):
        validation = predictor.predict_cases(validation, description="Validation rows", **inference)
    if validation is not None:
        task.decide(found, validation, predicted, coverage=config.coverage, sensitivity=config.sensitivity)
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
    """What every evaluation has, from predictions of a model with that calibration; None takes ``multiclass``."""
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


def _warn(found: Evaluation) -> None:
    if found.unreadable:
        logger.warning("%d rows could not be read and count in no figure.", found.unreadable)
    few = [f"{name} ({own['support']})" for name, own in found.per_class.items() if own["support"] < FEW]
    if few:
        logger.warning(
            "Classes with fewer than %d rows, whose figures are a matter of chance: %s.", FEW, ", ".join(few)
        )
