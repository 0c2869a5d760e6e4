"""Measure a model on a table of cases: figures, predictions and plots."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.data import CaseTable, DatasetConfig, check_images, read_cases
from mmfusion.evaluation.calibration import calibration_figures
from mmfusion.evaluation.conformal import METHODS, conformal_figures, fit_conformal
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.evaluation.metrics import classification_metrics
from mmfusion.evaluation.missing import missing_modality_figures
from mmfusion.evaluation.plots import plot_confusion_matrix, plot_reliability, plot_risk_coverage, plot_roc
from mmfusion.evaluation.selective import selective_figures
from mmfusion.evaluation.subgroups import subgroup_figures, write_subgroups
from mmfusion.evaluation.thresholds import threshold_figures
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.shares import mean_shares

logger = logging.getLogger(__name__)

#: fewer rows of a class than this make its figures a matter of chance.
FEW = 10

#: keywords of all intervals.
BOOTSTRAP: dict[str, Any] = {"replicates": 1000, "level": 0.95, "seed": 0}

#: errors that are listed.
WORST = 12


def evaluate(
    predictor: Predictor,
    cases: CaseTable,
    *,
    output: str | Path | None = None,
    on_bad_row: str = "fail",
    batch_size: int = 64,
    open_rows: Callable[[CaseTable], Any] | None = None,
    subgroups: Sequence[str] = (),
    validation: CaseTable | None = None,
    coverage: float = 0.9,
    sensitivity: float = 0.9,
    missing_modality: bool = False,
    **inference: Any,
) -> dict[str, Any]:
    """Predict the labelled rows of a table and compare.

    Args:
        predictor: the model, or several.
        cases: the rows; those without a label are predicted, and count in no figure.
        output: folder for ``metrics.json``, ``predictions.csv``, ``subgroups.csv`` and the plots; None writes nothing.
        on_bad_row: ``fail`` stops at a row that cannot be read; ``skip`` leaves it out of the figures, and says so.
        batch_size: rows per step.
        open_rows: makes the data set of sound rows, e.g. of cached features; None encodes them with the processor.
        subgroups: columns whose values part the rows, see :func:`~mmfusion.evaluation.subgroups.subgroup_figures`.
        validation: rows that conformal sets and decision thresholds are fitted on; other rows than those measured.
        coverage: wanted share of conformal sets with the true class.
        sensitivity: wanted of each class's decision threshold.
        missing_modality: also measure with the image alone and the text alone.
        inference: further keywords of :meth:`~mmfusion.Predictor.predict_cases`, e.g. ``tta=True``.

    Returns:
        :func:`~mmfusion.evaluation.metrics.classification_metrics`, and

        - ``unreadable``: the number of rows left out.
        - ``intervals``: :func:`~mmfusion.evaluation.intervals.metric_intervals` over whole groups of the table.
        - ``bootstrap``: how they were drawn: ``replicates``, ``level``, ``seed`` and the number of ``groups``.
        - ``calibration``: :func:`~mmfusion.evaluation.calibration.calibration_figures`, None without calibration.
        - ``selective``: :func:`~mmfusion.evaluation.selective.selective_figures`.
        - ``worst_errors``: the errors that the model was surest of.
        - ``expert_use``, ``gates``: what experts and gates did (:func:`~mmfusion.inference.shares.mean_shares`), where
          the model has such.
        - where asked for: ``subgroups``; ``conformal`` and ``thresholds``; ``missing_modality``.

    Raises:
        ValueError: a row cannot be read and ``on_bad_row`` is ``fail``, there is no labelled row, or no such column; or
            ``missing_modality`` of an ensemble.
    """
    if missing_modality and len(predictor.members) > 1:
        raise ValueError("missing_modality looks into one model; evaluate the models of an ensemble one by one.")
    names = predictor.labels
    folder = Path(output) if output else None
    inference = {"on_bad_row": on_bad_row, "batch_size": batch_size, "open_rows": open_rows, **inference}
    csv = folder / "predictions.csv" if folder else None
    predicted = predictor.predict_cases(cases, output=csv, **inference)
    y, p = predicted.labels, predicted.probabilities
    metrics = _figures(predicted, names)
    metrics |= mean_shares(predicted.shares, y, names)
    _warn(metrics)
    metrics["calibration"] = calibration_figures(predictor.calibration, y, predicted.uncalibrated, p)
    metrics["selective"] = selective_figures(y, p)
    metrics["worst_errors"] = _worst_errors(predicted, names)
    if subgroups:
        metrics["subgroups"] = subgroup_figures(predicted.frame, y, p, predicted.groups, subgroups, **BOOTSTRAP)
    if validation is not None:
        fitted = predictor.predict_cases(validation, description="Validation rows", **inference)
        metrics |= _decisions(fitted, predicted, names, coverage, sensitivity)
    if missing_modality:
        readable = replace(cases, frame=predicted.frame, problems=[])
        metrics["missing_modality"] = missing_modality_figures(predictor, readable, bootstrap=BOOTSTRAP, **inference)
    if folder:
        if subgroups:
            write_subgroups(metrics["subgroups"], folder / "subgroups.csv")
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        plot_confusion_matrix(metrics["confusion_matrix"], names, folder / "confusion_matrix.png")
        plot_roc(y, p, names, folder / "roc.png")
        before = predicted.uncalibrated if predictor.calibration else None
        plot_reliability(y, p, folder / "reliability.png", before)
        plot_risk_coverage(y, p, folder / "risk_coverage.png")
    return metrics


def _figures(predicted: Predictions, names: Sequence[str]) -> dict[str, Any]:
    y, p, groups = predicted.labels, predicted.probabilities, predicted.groups
    metrics = classification_metrics(y, p, names)
    metrics["unreadable"] = predicted.unreadable
    metrics["bootstrap"] = {**BOOTSTRAP, "groups": len(np.unique(groups))}
    metrics["intervals"] = metric_intervals(y, p, groups, class_names=names, **BOOTSTRAP)
    return metrics


def _decisions(
    fitted: Predictions, measured: Predictions, names: Sequence[str], coverage: float, sensitivity: float
) -> dict[str, Any]:
    """Conformal sets and decision thresholds, from other rows than those that they are tried on."""
    y, p, groups = measured.labels, measured.probabilities, measured.groups
    rules = {
        f"{method}{' by class' if by_class else ''}": fit_conformal(
            fitted.labels, fitted.probabilities, coverage=coverage, method=method, by_class=by_class
        )
        for method in METHODS
        for by_class in (False, True)
    }
    thresholds = threshold_figures((fitted.labels, fitted.probabilities), (y, p), groups, names, sensitivity)
    return {
        "conformal": {
            "wanted": coverage,
            "fitted_on": len(fitted.labels),
            **{name: conformal_figures(rule, y, p, groups, names) for name, rule in rules.items()},
        },
        "thresholds": {"wanted": sensitivity, "fitted_on": len(fitted.labels), "per_class": thresholds},
    }


def _worst_errors(predicted: Predictions, names: Sequence[str]) -> list[dict[str, Any]]:
    """The wrong rows with the most probable prediction: which they are, what is true and what was said."""
    y, p = predicted.labels, predicted.probabilities
    said = p.argmax(axis=1)
    wrong = np.flatnonzero(said != y)
    worst = wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")][:WORST]
    index, ids = predicted.frame.index, predicted.frame["id"]
    return [
        {
            "row": int(index[i]),
            "id": ids.iloc[i],
            "true_label": names[y[i]],
            "label": names[said[i]],
            "probability": float(p[i, said[i]]),
            "probability_of_true_label": float(p[i, y[i]]),
        }
        for i in worst
    ]


def read_split(
    data: str | Path, split: str, *, dataset: DatasetConfig, labels: Sequence[str], provenance: Mapping[str, Any]
) -> CaseTable:
    """The rows of a data set to measure a trained model on.

    Args:
        data: root folder of the data set, or its table.
        split: ``train``, ``val``, ``test``, or ``all``.
        dataset: how to read it.
        labels: the classes that the model knows.
        provenance: the ``training`` entry of the model's ``config.json``. Where the data have no split column, the
            split is drawn as it was for training, which takes the same seed and the same rows.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: bad rows (unless ``dataset.on_bad_row`` is ``skip``), no such split, or a split that cannot be drawn
            again, because these are not the rows that the model was trained on.
    """
    if split == "all":
        dataset = dataset.without_split()
    cases = read_cases(data, dataset, processor_labels=labels)
    if cases.layout != "image":
        # a case goes on without those of its images that cannot be read: they have to be known beforehand
        check_images(cases)
    if split == "all":
        return cases.resolve(dataset.on_bad_row)
    if cases.splits:
        return cases.select(split).resolve(dataset.on_bad_row)
    cases = check_images(cases).resolve(dataset.on_bad_row).split_or_draw(dataset, provenance.get("seed", 0))
    if cases.fingerprint() != provenance.get("data_fingerprint"):
        raise ValueError(
            f"{cases.source} has no split column, and differs from what the model was trained on, so that its "
            f"{split!r} rows cannot be told; choose split 'all' for data that the model has not seen."
        )
    return cases.select(split)


def _warn(metrics: dict[str, Any]) -> None:
    if metrics["unreadable"]:
        logger.warning("%d rows could not be read and count in no figure.", metrics["unreadable"])
    few = [f"{name} ({c['support']})" for name, c in metrics["per_class"].items() if c["support"] < FEW]
    if few:
        logger.warning(
            "Classes with fewer than %d rows, whose figures are a matter of chance: %s.", FEW, ", ".join(few)
        )
