"""Measure a model on a table of cases: figures, predictions and plots."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mmfusion.data import CaseTable, DatasetConfig, Processor, check_images, read_cases
from mmfusion.evaluation.cases import Predictions, predict_cases
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.evaluation.metrics import classification_metrics
from mmfusion.evaluation.plots import plot_confusion_matrix, plot_roc

logger = logging.getLogger(__name__)

#: fewer rows of a class than this make its figures a matter of chance.
FEW = 10

#: draws of the bootstrap, and the level of its intervals.
REPLICATES, LEVEL = 1000, 0.95


def evaluate(
    model: nn.Module,
    processor: Processor,
    cases: CaseTable,
    *,
    output: str | Path | None = None,
    on_bad_row: str = "fail",
    batch_size: int = 64,
    **inference: Any,
) -> dict[str, Any]:
    """Predict the labelled rows of a table and compare.

    Args:
        model: a ``FusionModel``.
        processor: the model's processor.
        cases: the rows; those without a label are predicted, and count in no figure.
        output: folder for ``metrics.json``, ``predictions.csv``, ``confusion_matrix.png`` and ``roc.png``; None writes
            nothing.
        on_bad_row: ``fail`` stops at a row that cannot be read; ``skip`` leaves it out of the figures, and says so.
        batch_size: rows per step.
        inference: further keywords of :func:`~mmfusion.evaluation.predictions.predict_rows`, e.g. ``tta=True``.

    Returns:
        :func:`~mmfusion.evaluation.metrics.classification_metrics`, and

        - ``unreadable``: the number of rows left out.
        - ``intervals``: :func:`~mmfusion.evaluation.intervals.metric_intervals` over whole groups of the table.
        - ``bootstrap``: how they were drawn: ``replicates``, ``level``, ``seed`` and the number of ``groups``.

    Raises:
        ValueError: a row cannot be read and ``on_bad_row`` is ``fail``, or there is no labelled row.
    """
    names = list(processor.labels)
    folder = Path(output) if output else None
    predicted = predict_cases(
        model,
        processor,
        cases,
        output=folder / "predictions.csv" if folder else None,
        on_bad_row=on_bad_row,
        batch_size=batch_size,
        **inference,
    )
    metrics = _figures(predicted, names)
    _warn(metrics)
    if folder:
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        plot_confusion_matrix(metrics["confusion_matrix"], names, folder / "confusion_matrix.png")
        plot_roc(predicted.labels, predicted.probabilities, names, folder / "roc.png")
    return metrics


def _figures(predicted: Predictions, names: Sequence[str]) -> dict[str, Any]:
    y, p, groups = predicted.labels, predicted.probabilities, predicted.groups
    metrics = classification_metrics(y, p, names)
    metrics["unreadable"] = predicted.unreadable
    metrics["bootstrap"] = {"replicates": REPLICATES, "level": LEVEL, "seed": 0, "groups": len(np.unique(groups))}
    metrics["intervals"] = metric_intervals(y, p, groups, class_names=names, replicates=REPLICATES, level=LEVEL)
    return metrics


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
