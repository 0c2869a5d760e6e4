"""Reads a data set into a table of cases, as a list of steps."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from mmfusion.data.cases import CaseTable
from mmfusion.data.checks import check_cases
from mmfusion.data.config import DatasetConfig
from mmfusion.data.early import LIGHT_STEPS
from mmfusion.data.formats import folder_of, only_table
from mmfusion.data.grouping import group_rows
from mmfusion.data.joined_labels import join_label_cells
from mmfusion.data.memory import DataSource, data_set
from mmfusion.data.normal_form import to_normal_form
from mmfusion.data.odd_cells import without_odd_cells
from mmfusion.data.reading import CaseReading, Reading
from mmfusion.data.regions import read_regions
from mmfusion.data.split_file import apply_split_table
from mmfusion.data.tables import read_parts

logger = logging.getLogger(__name__)

#: Steps before and after :func:`to_normal_form`, in order. Each is in its own file and does nothing unless the
#: configuration asks for it.
CELL_STEPS: tuple[Callable[[Reading], Reading], ...] = (*LIGHT_STEPS, without_odd_cells, join_label_cells)
CASE_STEPS: tuple[Callable[[CaseReading], CaseReading], ...] = (
    group_rows,
    read_regions,
    apply_split_table,
    check_cases,
)

#: Number of rows read at once when a table is streamed.
PART = 4096

#: Options that make a row depend on other rows or tables.
_DEPENDENT = ("labels_table", "join_on", "study_column", "split_table", "fold_column", "roi_columns")


def read_cases(
    root: DataSource,
    config: DatasetConfig | None = None,
    *,
    processor_labels: Sequence[str] | None = None,
    require_labels: bool = True,
    template: str | None = None,
) -> CaseTable:
    """Read a data set in any supported format and list the problems of its rows.

    Images are located but not opened; see :func:`check_images`.

    Args:
        root: Folder of the data set, its table, or one image; or a pandas or pyarrow table in memory, whose images
            are in ``dataset.image_root``, or have paths that are absolute or relative to the working directory.
        config: How to read it.
        processor_labels: Class names of a trained model; any other label is a problem. None uses the classes
            of the training rows.
        require_labels: False for prediction: labels, groups and splits may be missing, and labels that the model does
            not know become None.
        template: Text template of a trained model; its columns may be missing.

    Raises:
        FileNotFoundError: The data set, its table or its image root does not exist.
        ValueError: The format is unknown, a file is damaged, or columns are missing (all named at once).
    """
    known_labels = tuple(processor_labels) if processor_labels is not None else None
    reading = Reading(data_set(root), config or DatasetConfig(), require_labels, known_labels, template)
    return _through(CELL_STEPS, reading)


def stream_cases(
    root: DataSource,
    config: DatasetConfig,
    *,
    processor_labels: Sequence[str],
    template: str | None = None,
    rows: int = PART,
) -> Iterator[CaseTable]:
    """Read data for prediction in parts, if rows do not depend on each other, so that memory stays bounded.

    Args:
        root: As in :func:`read_cases`, like ``config``, ``processor_labels``, ``template`` and the errors raised.
        rows: Number of rows per part.
    """
    reading = Reading(data_set(root), config, False, tuple(processor_labels), template)
    table = only_table(reading) if not any(getattr(config, option) for option in _DEPENDENT) else None
    if table is None:
        yield _through(CELL_STEPS, reading)
        return
    for raw in read_parts(table, rows):
        part = replace(reading, config=config, raw=raw, folder=folder_of(reading, table))
        cases = _through(CELL_STEPS[1:], part)
        yield cases
        # all images are in the folder that has those of the first rows
        if not config.image_roots and cases.frame["image"].notna().any():
            config = replace(config, image_root=os.path.abspath(cases.image_root))


def _through(steps: Sequence[Callable[[Reading], Reading]], reading: Reading) -> CaseTable:
    for step in steps:
        reading = step(reading)
    found = to_normal_form(reading)
    for case_step in CASE_STEPS:
        found = case_step(found)
    for note in found.cases.notes:
        logger.warning("%s", note)
    return found.cases
