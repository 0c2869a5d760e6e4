"""The same rows with each modality taken away, or another row's text: what the model is worth without, and whether what
the text says matters at all.
"""

from collections.abc import Iterator
from dataclasses import replace
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
    """All metrics of one model on the rows that have an image and a text, with all, and with a part of it.

    A modality is taken away before the processor sees the row, as if the table had none.

    Args:
        predictor: One trained model.
        cases: labelled rows that can be read, the same for every condition.
        bootstrap: keywords of :func:`~mmfusion.evaluation.intervals.metric_intervals`.
        inference: further keywords of ``predict_cases``.

    Returns:
        The conditions, the first with everything. A model that looks at the picture alone has the same figures with
        the text of another row. Empty where the model has one modality and one picture, or no row has both.
    """
    whole = _complete(cases, predictor.processor)
    conditions = list(_conditions(whole, predictor.processor)) if len(whole) else []
    result: list[Condition] = []
    named: list[NDArray[np.int64]] = []
    for shown, rows, reader in conditions if len(conditions) > 1 else []:
        found = replace(predictor, processor=reader).predict_cases(rows, description=shown.capitalize(), **inference)
        figures = metric_intervals(found.labels, found.probabilities, found.groups, **(bootstrap or {})).figures
        named.append(found.probabilities.argmax(axis=1))
        result.append(Condition(shown, len(found.labels), float((named[-1] != named[0]).mean()), figures))
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
        yield "text of another row", _shuffled(cases, processor), processor
    if has_image and cases.layout == "views":
        images = cases.frame["image"].tolist()
        for view in range(len(images[0])):
            alone = [tuple(path if i == view else None for i, path in enumerate(paths)) for paths in images]
            yield f"view {view + 1} {'and text' if has_text else 'only'}", _with(cases, "image", alone), processor


def _shuffled(cases: CaseTable, processor: Processor) -> CaseTable:
    """Every row with the text and the metadata of a row drawn without replacement."""
    template = processor.text_template
    names = {"text", *(template_fields(template) if template is not None else ())}
    columns = [name for name in cases.frame if name in names]
    order = np.random.default_rng(0).permutation(len(cases))
    drawn = cases.frame[columns].iloc[order].set_index(cases.frame.index)
    return replace(cases, frame=cases.frame.assign(**drawn))


def _with(cases: CaseTable, column: str, cells: list[Any]) -> CaseTable:
    series = pd.Series(cells, index=cases.frame.index, dtype=object)
    return replace(cases, frame=cases.frame.assign(**{column: series}))
