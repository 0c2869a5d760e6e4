"""Checks of a data set that need no heavy library: files, columns, splits."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

from mmfusion.data.cases import NORMAL_COLUMNS
from mmfusion.data.class_folders import SPLIT_NAMES
from mmfusion.data.columns import find_columns
from mmfusion.data.config import DatasetConfig
from mmfusion.data.folds import split_by_fold
from mmfusion.data.formats import find_split_table, folder_of, has_table, only_table, read_files
from mmfusion.data.header_columns import add_header_columns
from mmfusion.data.image_folder import find_image_root
from mmfusion.data.labels_table import join_labels
from mmfusion.data.memory import DataSource, data_set
from mmfusion.data.one_hot import read_label_columns
from mmfusion.data.problems import no_such_split
from mmfusion.data.reading import Reading
from mmfusion.data.renaming import rename_columns
from mmfusion.data.tables import read_parts
from mmfusion.names import lacking

#: The reading steps that work on plain lists of cells, in order.
LIGHT_STEPS: tuple[Callable[[Reading], Reading], ...] = (
    read_files,
    add_header_columns,
    join_labels,
    rename_columns,
    split_by_fold,
    read_label_columns,
    find_columns,
)

#: Splits that an evaluation can name.
SPLITS = ("train", "val", "test", "all")


def check_data(
    data: DataSource,
    config: DatasetConfig,
    *,
    require_labels: bool = True,
    is_trained: bool = False,
    split: str | None = None,
    columns: Sequence[str] = (),
) -> None:
    """Find files, columns and splits that are missing, before the data are read in full.

    Args:
        data: Folder of the data set, its table, or one image; or a table in memory.
        config: How to read it.
        require_labels: As in :func:`~mmfusion.data.read.read_cases`; if False, a folder may hold only images.
        is_trained: Whether the data are for a trained model, which can do without some of its columns.
        split: Split that must have rows; None accepts any.
        columns: Names of metadata columns that must exist.

    Raises:
        FileNotFoundError: A file or folder does not exist.
        ValueError: A column, the split, or something in the table is missing or invalid.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}; it is one of {', '.join(SPLITS)}.")
    if split == "all":
        config = config.without_split()
    path = data_set(data)
    if not require_labels and not has_table(path):
        return  # images only
    # the header of a table is enough, unless cell values matter
    whole = bool(config.folds) or split not in (None, "all")
    reading = _opened(Reading(path, config, require_labels, () if is_trained else None), whole)
    for step in LIGHT_STEPS[1:]:
        reading = step(reading)
    if config.image_roots:
        find_image_root(reading.folder, config, ())
    if require_labels and config.split_table is not None:
        find_split_table(config.split_table, reading.folder)
    known = [*reading.raw.columns, *config.columns.values()]
    if missing := [name for name in columns if name not in (*known, *NORMAL_COLUMNS)]:
        raise ValueError(f"{reading.raw.source} has no column {lacking(missing, known)}")
    if split not in (None, "all"):
        _check_split(reading, str(split))


def _opened(reading: Reading, whole: bool) -> Reading:
    """Read the files of a data set; of a single table only the first row, unless ``whole``."""
    table = None if whole else only_table(reading)
    if table is None:
        return read_files(reading)
    return replace(reading, raw=next(read_parts(table, 1)), folder=folder_of(reading, table))


def _check_split(reading: Reading, split: str) -> None:
    """Reject a split without rows in a table with a split column. A drawn split always has rows."""
    cells = reading.raw.columns[reading.columns.split] if reading.columns.split else []
    names = Counter(SPLIT_NAMES.get(str(cell).strip().lower()) for cell in cells)
    there = {name: names[name] for name in SPLITS if names[name]}
    if there and split not in there:
        raise no_such_split(reading.raw.source, split, there)
