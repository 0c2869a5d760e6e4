"""The same rows with each modality taken away: what the model is worth when the image, or the text, is not there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mmfusion.data import CaseTable, Processor
from mmfusion.evaluation.cases import predict_cases
from mmfusion.evaluation.intervals import metric_intervals


def missing_modality_figures(
    model: Any,
    processor: Processor,
    cases: CaseTable,
    *,
    bootstrap: Any = None,
    **inference: Any,
) -> list[dict[str, Any]]:
    """Headline figures of one model on the rows that have an image and a text, with all, and with a part of it.

    A modality is taken away before the processor sees the row, as if the table had none.

    Args:
        model: a ``FusionModel``.
        processor: the model's processor.
        cases: labelled rows that can be read, the same for every condition.
        bootstrap: keywords of :func:`~mmfusion.evaluation.intervals.metric_intervals`.
        inference: further keywords of ``predict_cases``.

    Returns:
        One dict per condition, the first with everything: ``shown``, ``n``, and the headline figures as
        ``{"value", "low", "high"}``. Empty where the model has one modality and one picture, or no row has both.
    """
    whole = _complete(cases, processor)
    conditions = list(_conditions(whole, processor)) if len(whole) else []
    result: list[dict[str, Any]] = []
    for shown, rows, reader in conditions if len(conditions) > 1 else []:
        found = predict_cases(model, reader, rows, description=shown.capitalize(), **inference)
        figures = metric_intervals(found.labels, found.probabilities, found.groups, **(bootstrap or {}))
        result.append({"shown": shown, "n": len(found.labels)} | figures)
    return result


def _complete(cases: CaseTable, processor: Processor) -> CaseTable:
    """The rows that have all that the model reads."""
    frame = cases.frame
    has = np.ones(len(frame), dtype=bool)
    if processor.image_size is not None:
        has &= [cell is not None and (cases.layout != "views" or all(cell)) for cell in frame["image"]]
    if processor.tokenizer is not None:
        has &= [bool(processor.text_of(row)) for row in frame.to_dict("records")]
    return replace(cases, frame=frame[has], problems=[])


def _conditions(cases: CaseTable, processor: Processor) -> Iterator[tuple[str, CaseTable, Processor]]:
    """What is shown, the rows that show it, and the processor that reads them."""
    has_image, has_text = processor.image_size is not None, processor.tokenizer is not None
    yield ("image and text" if has_image and has_text else "everything"), cases, processor
    if has_image and has_text:
        yield "image only", _with(cases, "text", [None] * len(cases)), replace(processor, text_template=None)
        yield "text only", _with(cases, "image", [None] * len(cases)), processor
    if has_image and cases.layout == "views":
        images = cases.frame["image"].tolist()
        for view in range(len(images[0])):
            alone = [tuple(path if i == view else None for i, path in enumerate(paths)) for paths in images]
            yield f"view {view + 1} {'and text' if has_text else 'only'}", _with(cases, "image", alone), processor


def _with(cases: CaseTable, column: str, cells: list[Any]) -> CaseTable:
    series = pd.Series(cells, index=cases.frame.index, dtype=object)
    return replace(cases, frame=cases.frame.assign(**{column: series}))
