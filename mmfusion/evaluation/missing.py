"""Evaluation with modalities removed, or text or columns taken from another row."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmfusion.data import CaseTable, Processor
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.inference.predictor import Predictor
from mmfusion.results import Condition
from mmfusion.text.template import template_fields


def missing_modality(
    predictor: Predictor, cases: CaseTable, *, bootstrap: Any = None, **inference: Any
) -> list[Condition]:
    """All metrics of one model on rows with complete inputs, with all and with subsets of the modalities.

    A modality is removed before the processor reads the row, as if the table had none. A column that is also part of
    the text is removed from one of them only.

    Args:
        predictor: A single trained model.
        cases: Labeled, readable rows; the same for every condition.
        bootstrap: Keywords of :func:`~mmfusion.evaluation.intervals.metric_intervals`.
        inference: Keywords of ``predict_cases``.

    Returns:
        The conditions: first complete inputs, then every subset of the modalities, then text and columns of another
        row, which do not change the metrics of a model that only uses the image. Empty if the model has one modality
        and one image, or no row is complete.
    """
    whole, reader = _with_own_columns(_complete(cases, predictor.processor), predictor.processor)
    conditions = list(_conditions(whole, reader)) if len(whole) else []
    result: list[Condition] = []
    answers: list[NDArray[np.float32]] = []
    for shown, rows, reader in conditions if len(conditions) > 1 else []:
        found = replace(predictor, processor=reader).predict_cases(rows, description=shown.capitalize(), **inference)
        told = found.labels, found.probabilities, found.groups
        figures = metric_intervals(*told, task=predictor.task, **(bootstrap or {})).figures
        answers.append(found.probabilities)
        changed = float(predictor.task.differ(answers[-1], answers[0]).mean())
        result.append(Condition(shown, len(found.labels), changed, figures))
    return result


def _complete(cases: CaseTable, processor: Processor) -> CaseTable:
    """The rows with all inputs of the model; any column is enough."""
    frame = cases.frame
    has = np.ones(len(frame), dtype=bool)
    if processor.reads_images:
        has &= [cell is not None and (cases.layout != "views" or all(cell)) for cell in frame["image"]]
    if processor.tokenizer is not None:
        has &= [bool(processor.text_of(row)) for row in frame.to_dict("records")]
    if processor.table is not None:
        has &= processor.table.encode_columns(frame, processor.missing_values).present
    return replace(cases, frame=frame[has], problems=[])


def _with_own_columns(cases: CaseTable, processor: Processor) -> tuple[CaseTable, Processor]:
    """Copy the columns under names that no text template has, so that they can change without the text."""
    if processor.table is None:
        return cases, processor
    names = {name: f"column {name}" for name in processor.table.names if name in cases.frame}
    copies = {own: cases.frame[name] for name, own in names.items()}
    table = processor.table.renamed({name: f"column {name}" for name in processor.table.names})
    return replace(cases, frame=cases.frame.assign(**copies)), replace(processor, table=table)


def _conditions(cases: CaseTable, processor: Processor) -> Iterator[tuple[str, CaseTable, Processor]]:
    """Name, rows and processor of each condition."""
    read = {
        "image": processor.reads_images,
        "text": processor.tokenizer is not None,
        "columns": processor.table is not None,
    }
    names = [name for name, is_read in read.items() if is_read]
    yield (_joined(names) if len(names) > 1 else "everything"), cases, processor
    for count in range(len(names) - 1, 0, -1):
        for shown in combinations(names, count):
            yield _joined(shown), *_without(cases, processor, set(names) - set(shown))
    for name in names if len(names) > 1 else ():
        if name != "image":
            yield f"{name} of another row", _shuffled(cases, processor, name), processor
    if read["image"] and cases.layout == "views":
        images, rest = cases.frame["image"].tolist(), [name for name in names if name != "image"]
        for view in range(len(images[0])):
            alone = [tuple(path if i == view else None for i, path in enumerate(paths)) for paths in images]
            yield _joined([f"view {view + 1}", *rest]), _with(cases, "image", alone), processor


def _joined(names: Sequence[str]) -> str:
    """``image only``, ``image and text``, ``image, text and columns``."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else f"{last} only"


def _without(cases: CaseTable, processor: Processor, gone: set[str]) -> tuple[CaseTable, Processor]:
    """The rows without some modalities."""
    nothing: list[Any] = [None] * len(cases)
    if "image" in gone:
        cases = _with(cases, "image", nothing)
    if "text" in gone:
        cases, processor = _with(cases, "text", nothing), replace(processor, text_template=None)
    if "columns" in gone and processor.table is not None:
        cases = replace(cases, frame=cases.frame.drop(columns=processor.table.names, errors="ignore"))
    return cases, processor


def _shuffled(cases: CaseTable, processor: Processor, modality: str) -> CaseTable:
    """Give every row the text with its metadata, or the columns, of another row drawn without replacement."""
    if modality == "columns" and processor.table is not None:
        names = set(processor.table.names)
    else:
        names = {"text", *template_fields(processor.text_template or "")}
    columns = [name for name in cases.frame if name in names]
    order = np.random.default_rng(0).permutation(len(cases))
    drawn = cases.frame[columns].iloc[order].set_index(cases.frame.index)
    return replace(cases, frame=cases.frame.assign(**drawn))


def _with(cases: CaseTable, column: str, cells: list[Any]) -> CaseTable:
    series = pd.Series(cells, index=cases.frame.index, dtype=object)
    return replace(cases, frame=cases.frame.assign(**{column: series}))
