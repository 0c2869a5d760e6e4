"""Columns that a table of rows takes from elsewhere: labels of a second table, splits from folds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmfusion.data.config import DatasetConfig
from mmfusion.data.formats import SPLIT_NAMES, RawTable, read_table
from mmfusion.text.template import cell_text


def join_labels(raw: RawTable, folder: Path, config: DatasetConfig, *, required: bool = True) -> None:
    """Add the columns of ``dataset.labels_table`` to the rows that agree with it in ``dataset.join_on``.

    A row whose value the second table lacks has nothing in the added columns; one whose line there is broken is broken.

    Args:
        raw: the rows, changed in place.
        folder: root of the data set.
        config: how to read it.
        required: False where the data are only predicted: the second table may be absent.

    Raises:
        ValueError: one of the two options without the other, no such column, or a value twice in the second table.
        FileNotFoundError: there is no such table.
    """
    if config.labels_table is None and config.join_on is None:
        return
    if config.labels_table is None or config.join_on is None:
        raise ValueError("dataset.labels_table and dataset.join_on go together; one of them is missing.")
    path, key = folder / config.labels_table, config.join_on
    if not required and not (path.is_file() and key in raw.columns):
        return
    other = read_table(path)
    for table in (raw, other):
        if key not in table.columns:
            raise ValueError(
                f"{table.source} has no column {key!r} (dataset.join_on); it has {', '.join(table.columns)}."
            )
    rows: dict[str, int] = {}
    for row, cell in enumerate(other.columns[key], start=1):
        value = cell_text(cell)
        if value is None:
            continue
        if value in rows:
            raise ValueError(
                f"{other.source} has {key} {value!r} in rows {rows[value]} and {row}; "
                "dataset.join_on needs one row a value."
            )
        rows[value] = row
    matches = [rows.get(value) if (value := cell_text(cell)) is not None else None for cell in raw.columns[key]]
    for row, match in enumerate(matches, start=1):
        if match in other.broken:
            raw.broken.setdefault(row, f"{other.source}, row {match}: {other.broken[match]}")
    for name, cells in other.columns.items():
        raw.columns.setdefault(name, [None if match is None else cells[match - 1] for match in matches])


def split_by_fold(raw: RawTable, config: DatasetConfig, *, required: bool = True) -> None:
    """Put the split column in place that ``dataset.fold_column`` and ``dataset.folds`` describe.

    Args:
        raw: the rows, changed in place.
        config: how to read them.
        required: False where the data are only predicted: the fold column may be absent.

    Raises:
        ValueError: one of the two options without the other, no such column, a split column beside it, an unknown
            split, or a fold that two splits claim or no row has.
    """
    if config.fold_column is None and not config.folds:
        return
    if config.fold_column is None or not config.folds:
        raise ValueError(
            "dataset.fold_column and dataset.folds ({test: [0], val: [1]}) go together; one of them is missing."
        )
    if config.fold_column not in raw.columns:
        if not required:
            return
        raise ValueError(
            f"{raw.source} has no column {config.fold_column!r} (dataset.fold_column); it has {', '.join(raw.columns)}."
        )
    if config.split_column in raw.columns:
        raise ValueError(
            f"{raw.source} has a column {config.split_column!r}, and dataset.fold_column makes one; "
            "leave one of them out (--dataset.split_column null)."
        )
    split_of: dict[str, str] = {}
    for name, folds in config.folds.items():
        if name not in SPLIT_NAMES:
            raise ValueError(f"dataset.folds: unknown split {name!r}; the splits are train, val, test.")
        for fold in folds if isinstance(folds, (list, tuple)) else [folds]:
            if split_of.setdefault(str(fold), name) != name:
                raise ValueError(f"dataset.folds: fold {fold} is in {split_of[str(fold)]} and in {name}.")
    cells: list[Any] = [cell_text(cell) for cell in raw.columns[config.fold_column]]
    there = dict.fromkeys(cell for cell in cells if cell is not None)
    unknown = [fold for fold in split_of if fold not in there]
    if unknown and required:
        raise ValueError(
            f"dataset.folds: no row of {raw.source} has the fold {', '.join(unknown)}; "
            f"there are {', '.join(sorted(there))}."
        )
    raw.columns[config.split_column or "split"] = [
        None if cell is None else split_of.get(cell, "train") for cell in cells
    ]
