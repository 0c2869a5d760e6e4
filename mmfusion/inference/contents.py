"""What is said of the rows before a trained model reads them: what they hold, and what it will not find."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmfusion.data import CaseTable, DatasetConfig, read_cases
from mmfusion.data.contents import contents_of
from mmfusion.data.memory import DataSource

if TYPE_CHECKING:
    from mmfusion.inference.predictor import Predictor

logger = logging.getLogger(__name__)


def use_template(predictor: "Predictor", dataset: DatasetConfig) -> None:
    """Make texts by the template that the user gives, where it is another than the model was trained with."""
    given = dataset.text_template
    if given is None or given == predictor.dataset.text_template:
        return
    for member in predictor.members:
        if member.processor.tokenizer is not None and member.processor.text_template != given:
            print(f"texts by {given!r}, in place of the model's own {member.processor.text_template!r}")
            member.processor = replace(member.processor, text_template=given)


def tell_contents(predictor: "Predictor", cases: CaseTable) -> None:
    """Print what the rows hold; warn of a modality that the model reads and no row has."""
    processor = predictor.members[0].processor
    columns = processor.table.names if processor.table is not None else []
    found = contents_of(
        cases, template=processor.text_template, missing_values=processor.missing_values, columns=columns
    )
    print(found.line())
    reads = {
        "image": (processor.image_size is not None, found.image),
        "text": (processor.tokenizer is not None, found.text),
        "columns": (bool(columns), sum(found.columns[name] for name in columns)),
    }
    there = [name for name, (is_read, count) in reads.items() if is_read and count]
    for name, (is_read, count) in reads.items():
        if is_read and not count and there:
            what = "any of the columns" if name == "columns" else f"{'an' if name == 'image' else 'a'} {name}"
            logger.warning("no row has %s: the model judges from the %s alone", what, " and the ".join(there))


def warn_of_training_rows(
    data: DataSource, split: str, cases: CaseTable, *, dataset: DatasetConfig, provenance: Mapping[str, Any]
) -> None:
    """Warn where rows to measure on are known to have trained the model: its figures are then too good.

    Args:
        data: Where the rows are.
        split: Which of them are measured.
        cases: These rows.
        dataset: How they are read.
        provenance: The ``training`` entry of the model's ``config.json``.
    """
    count, made_of = 0, provenance.get("rows") or {}
    if split == "train":
        count = len(cases)
    elif split == "all" and len(cases) == sum(made_of.values()):
        whole = read_cases(data, dataset).split_or_draw(dataset, provenance.get("seed", 0))
        same = whole.fingerprint() == provenance.get("data_fingerprint")
        count = made_of.get("train", 0) if same else 0
    if count:
        logger.warning("%d of these rows trained the model: the figures are better than on new rows", count)
