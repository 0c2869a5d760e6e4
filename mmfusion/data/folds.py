"""Reading step: a split column from a column of folds."""

from dataclasses import replace

from mmfusion.data.class_folders import SPLIT_NAMES
from mmfusion.data.config import DatasetConfig
from mmfusion.data.reading import Reading
from mmfusion.data.tables import RawTable
from mmfusion.text.template import cell_text


def split_by_fold(reading: Reading) -> Reading:
    """Add the split column defined by ``dataset.fold_column`` and ``dataset.folds``.

    If there is a split table, its folds are used instead of those of the data.
    """
    config = reading.config
    if config.split_table is not None:
        return reading
    raw = with_fold_split(reading.raw, config, config.split_column, required=reading.require_labels)
    return replace(reading, raw=raw)


def with_fold_split(
    raw: RawTable, config: DatasetConfig, split_column: str | None, *, required: bool = True
) -> RawTable:
    """Return the table with the split of each row's fold.

    Args:
        raw: The rows.
        config: ``fold_column`` and ``folds``; without them the table is returned unchanged.
        split_column: Name of the new column; None means ``split``.
        required: If False (prediction), the fold column may be missing.

    Raises:
        ValueError: Only one of the two options is given, the column does not exist, there is also a split column, a
            split is unknown, or a fold is in two splits or in no row.
    """
    column, source = config.fold_column, raw.source
    if column is None and not config.folds:
        return raw
    if column is None or not config.folds:
        both = "dataset.fold_column and dataset.folds ({test: [0], val: [1]})"
        raise ValueError(f"{both} must be given together; one of them is missing.")
    if column not in raw.columns:
        if not required:
            return raw
        raise ValueError(f"{source} has no column {column!r} (dataset.fold_column); it has {', '.join(raw.columns)}.")
    if split_column in raw.columns:
        fix = "remove one of them (--dataset.split_column null)"
        raise ValueError(f"{source} has a column {split_column!r}, and dataset.fold_column creates one; {fix}.")
    split_of = _split_of_fold(config)
    cells = [cell_text(cell) for cell in raw.columns[column]]
    there = {cell for cell in cells if cell is not None}
    unknown = [fold for fold in split_of if fold not in there]
    if unknown and required:
        absent = f"no row of {source} has the fold {', '.join(unknown)}"
        raise ValueError(f"dataset.folds: {absent}; there are {', '.join(sorted(there))}.")
    splits = [None if cell is None else split_of.get(cell, "train") for cell in cells]
    return replace(raw, columns=raw.columns | {split_column or "split": splits})


def _split_of_fold(config: DatasetConfig) -> dict[str, str]:
    split_of: dict[str, str] = {}
    for name, folds in config.folds.items():
        if name not in SPLIT_NAMES:
            raise ValueError(f"dataset.folds: unknown split {name!r}; expected train, val or test.")
        for fold in folds if isinstance(folds, (list, tuple)) else [folds]:
            if split_of.setdefault(str(fold), name) != name:
                raise ValueError(f"dataset.folds: fold {fold} is in {split_of[str(fold)]} and in {name}.")
    return split_of
