"""From the files of a data set to a table of cases: a list of steps."""

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

#: What is done, in order, before and after :func:`to_normal_form`. Each step is in a file of its own, and leaves out
#: what the configuration does not ask for.
CELL_STEPS: tuple[Callable[[Reading], Reading], ...] = (*LIGHT_STEPS, without_odd_cells, join_label_cells)
CASE_STEPS: tuple[Callable[[CaseReading], CaseReading], ...] = (
    group_rows,
    read_regions,
    apply_split_table,
    check_cases,
)

#: Rows that are read at once where a table is streamed.
PART = 4096

#: Options with which a row takes other rows, or other tables, to read.
_DEPENDENT = ("labels_table", "join_on", "study_column", "split_table", "fold_column", "roi_columns")


def read_cases(
    root: DataSource,
    config: DatasetConfig | None = None,
    *,
    processor_labels: Sequence[str] | None = None,
    require_labels: bool = True,
    template: str | None = None,
) -> CaseTable:
    """Read a data set, whatever its format, and list what is wrong with its rows.

    Images are looked for but not opened: :func:`check_images` does that.

    Args:
        root: The data set's folder, its table, or one image; or a pandas or pyarrow table in memory, whose images
            lie below ``dataset.image_root``, or have paths that are absolute or relative to the working directory.
        config: How to read it.
        processor_labels: Class names that a trained model knows; any other label is a problem. None takes the classes
            of the training rows.
        require_labels: False where the data are only predicted: labels, groups and splits may be absent, and a label
            that the model does not know reads as None.
        template: Text template of a trained model; the columns that it names may be absent.

    Raises:
        FileNotFoundError: The data set, its table or its image root does not exist.
        ValueError: The format is unknown, a file is damaged as a whole, or columns are missing (all named at once).
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
    """Read data to predict on, so many rows at a time where rows do not depend on each other: memory does not grow.

    Args:
        root: As for :func:`read_cases`, like ``config``, ``processor_labels``, ``template`` and what is raised.
        rows: Rows of a part.
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
        # where the first rows have their images, all have them
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
