"""Messages about the rows before prediction: which inputs they have and which are missing."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from mmfusion.data import CaseTable, DatasetConfig, read_cases
from mmfusion.data.contents import Contents, contents_of
from mmfusion.data.memory import DataSource
from mmfusion.inference.columns import alone, modalities_of, warn_of
from mmfusion.inference.predictor import Ensemble, Predictor

logger = logging.getLogger(__name__)


def with_template(predictor: Predictor, dataset: DatasetConfig) -> Predictor:
    """The predictor with the text template of a data set, if it differs from the model's."""
    given = dataset.text_template
    if given is None:
        return predictor
    members = [_with_template(member, given) for member in predictor.members]
    return members[0] if len(members) == 1 else Ensemble(members)


def _with_template(member: Predictor, given: str) -> Predictor:
    processor = member.processor
    if processor.tokenizer is None or processor.text_template == given:
        return member
    print(f"using the text template {given!r} instead of the model's {processor.text_template!r}")
    return replace(member, processor=replace(processor, text_template=given))


def template_of(predictor: Predictor) -> str | None:
    """The model's text template, or None."""
    processor = predictor.members[0].processor
    return processor.text_template if processor.tokenizer is not None else None


def contents_for(predictor: Predictor, cases: CaseTable) -> Contents:
    """Coverage of the model's inputs in the rows."""
    processor = predictor.members[0].processor
    columns = processor.table.names if processor.table is not None else []
    template, missing_values = processor.text_template, processor.missing_values
    return contents_of(cases, template=template, missing_values=missing_values, columns=columns)


def tell_contents(predictor: Predictor, cases: CaseTable) -> None:
    """Print the coverage of the inputs and warn about modalities that no row has."""
    processor, found = predictor.members[0].processor, contents_for(predictor, cases)
    columns = processor.table.names if processor.table is not None else []
    print(found.line())
    there = {"image": found.image, "text": found.text, "table": sum(found.columns[name] for name in columns)}
    warn_of(alone(modalities_of([processor]), there))


def warn_of_training_rows(
    data: DataSource, split: str, cases: CaseTable, *, dataset: DatasetConfig, provenance: Mapping[str, Any]
) -> None:
    """Warn if rows to evaluate are known training rows, since the metrics are then too optimistic.

    Args:
        data: Data set.
        split: Split to evaluate.
        cases: Rows of the split.
        dataset: How to read the data.
        provenance: The ``training`` entry of the model's ``config.json``.
    """
    count, made_of = 0, provenance.get("rows") or {}
    if split == "train" and len(cases) == made_of.get("train"):
        count = len(cases)
    elif split == "all" and len(cases) == sum(made_of.values()):
        whole = read_cases(data, dataset).split_or_draw(dataset, provenance.get("seed", 0))
        same = whole.fingerprint() == provenance.get("data_fingerprint")
        count = made_of.get("train", 0) if same else 0
    if count:
        logger.warning("%d of these rows were used for training: the metrics are too optimistic", count)
