"""Reads data to predict: a folder of images, a data set, or a table, with or without labels."""

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmfusion.data import CaseTable, DatasetConfig, check_images, read_cases
from mmfusion.data.formats import has_table
from mmfusion.data.memory import DataSource, data_set
from mmfusion.data.read import stream_cases

logger = logging.getLogger(__name__)


def read_unlabelled(
    data: DataSource, dataset: DatasetConfig, labels: Sequence[str], template: str | None = None
) -> CaseTable:
    """Read the rows to predict, labeled or not, from a folder of images, a data set folder, or a table.

    A folder without a table is read as images. Unreadable images are logged and dropped from cases with several.
    Labels unknown to the model are ignored.

    Raises:
        FileNotFoundError: The data do not exist.
        ValueError: The data cannot be read, e.g. a column is missing.
    """
    given: dict[str, Any] = {"processor_labels": labels, "require_labels": False, "template": template}
    return _looked_at(read_cases(data, _config(data, dataset), **given))


def stream_unlabelled(
    data: DataSource, dataset: DatasetConfig, labels: Sequence[str], template: str | None = None
) -> Iterator[CaseTable]:
    """Read the same in parts, if the rows of a long table do not depend on each other, in bounded memory."""
    yield from map(_looked_at, stream_cases(data, _config(data, dataset), processor_labels=labels, template=template))


def _config(data: DataSource, dataset: DatasetConfig) -> DatasetConfig:
    path = data_set(data)
    named = dataset.table is not None and isinstance(path, Path) and (path / dataset.table).is_file()
    if named or has_table(path):
        return dataset
    kept = ("image_root", "follow_links", "slice", "slices", "header_columns", "missing_values")
    return DatasetConfig(format="folder", **{name: getattr(dataset, name) for name in kept})


def _looked_at(cases: CaseTable) -> CaseTable:
    """Warn of unreadable images in cases with other images."""
    if not cases.one_path:
        for problem in check_images(cases).problems:
            if problem.part_of is not None:
                logger.warning("%s: %s; its case is kept without it", cases.source, problem)
    return cases
