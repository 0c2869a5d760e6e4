"""Measure a model on a table of cases: figures, predictions and plots."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from mmfusion.data import CaseTable, DatasetConfig, Processor, check_images, read_cases
from mmfusion.evaluation.metrics import classification_metrics
from mmfusion.evaluation.plots import plot_confusion_matrix, plot_roc
from mmfusion.evaluation.predictions import AllRows, PredictionWriter, predict_rows
from mmfusion.evaluation.use import mean_shares

logger = logging.getLogger(__name__)

#: fewer rows of a class than this make its figures a matter of chance.
FEW = 10


def evaluate(
    model: nn.Module,
    processor: Processor,
    cases: CaseTable,
    *,
    output: str | Path | None = None,
    on_bad_row: str = "fail",
    batch_size: int = 64,
    open_rows: Callable[[CaseTable], Any] | None = None,
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
        open_rows: makes the data set of sound rows, e.g. of cached features; None encodes them with the processor.
        inference: further keywords of :func:`~mmfusion.evaluation.predictions.predict_rows`, e.g. ``tta=True``.

    Returns:
        :func:`~mmfusion.evaluation.metrics.classification_metrics`; ``unreadable``, the number of rows left out; and
        what experts and gates did in the others (:func:`~mmfusion.evaluation.use.mean_shares`).

    Raises:
        ValueError: a row cannot be read and ``on_bad_row`` is ``fail``, or there is no labelled row.
    """
    if on_bad_row not in ("fail", "skip"):
        raise ValueError(f"on_bad_row is 'fail' or 'skip', not {on_bad_row!r}.")
    names = list(processor.labels)
    rows = AllRows(cases, processor, open_rows=open_rows)
    truth = [names[label] if label >= 0 else "" for label in rows.labels]
    probabilities = np.empty((len(rows), len(names)), dtype=np.float32)
    errors: list[str | None] = []
    shares: dict[str, NDArray[np.float32]] = {}
    writer = PredictionWriter(Path(output) / "predictions.csv", names, true_labels=True) if output else None
    with writer or nullcontext(), tqdm(total=len(rows), desc="Evaluating", unit="row", disable=None) as bar:
        parts = predict_rows(model, rows, rows.collate, num_classes=len(names), batch_size=batch_size, **inference)
        for part in parts:
            here = slice(part.start, part.start + len(part.errors))
            if on_bad_row == "fail":
                _refuse(part.errors, rows.ids[here])
            probabilities[here] = part.probabilities
            errors += part.errors
            for name, values in part.shares.items():
                shares.setdefault(name, np.full((len(rows), values.shape[1]), np.nan, dtype=np.float32))[here] = values
            if writer:
                writer.write(rows.ids[here], part, truth[here])
            bar.update(len(part.errors))
    readable = np.array([error is None for error in errors])
    used = readable & (rows.labels >= 0)
    metrics = classification_metrics(rows.labels[used], probabilities[used], names)
    metrics["unreadable"] = int((~readable).sum())
    metrics |= mean_shares({name: values[used] for name, values in shares.items()}, rows.labels[used], names)
    _warn(metrics)
    if output:
        folder = Path(output)
        (folder / "metrics.json").write_text(json.dumps(metrics, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        plot_confusion_matrix(metrics["confusion_matrix"], names, folder / "confusion_matrix.png")
        plot_roc(rows.labels[used], probabilities[used], names, folder / "roc.png")
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


def _refuse(errors: Sequence[str | None], ids: Sequence[str]) -> None:
    for row, error in zip(ids, errors, strict=True):
        if error is not None:
            raise ValueError(
                f"Row {row} cannot be evaluated: {error}; mend it, or leave it out with --on-bad-row skip."
            )


def _warn(metrics: dict[str, Any]) -> None:
    if metrics["unreadable"]:
        logger.warning("%d rows could not be read and count in no figure.", metrics["unreadable"])
    few = [f"{name} ({c['support']})" for name, c in metrics["per_class"].items() if c["support"] < FEW]
    if few:
        logger.warning(
            "Classes with fewer than %d rows, whose figures are a matter of chance: %s.", FEW, ", ".join(few)
        )
