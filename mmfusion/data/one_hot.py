"""Reading step: the label from one-hot or multi-hot columns."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmfusion.data.presets import PRESETS, preset_of
from mmfusion.data.reading import Reading
from mmfusion.data.tables import RawTable
from mmfusion.names import did_you_mean
from mmfusion.text.template import cell_number, cell_text

#: Minimum number of one-hot columns that look like classes.
_CLASSES = 3


def read_label_columns(reading: Reading) -> Reading:
    """Collect the cells of ``dataset.label_columns`` in the label column; a later step joins them.

    For prediction only, the columns may be missing, and also for a trained model if ``dataset.label_column`` exists.
    Without the option, a label column that is one of several one-hot columns is noted.

    Raises:
        ValueError: A column does not exist, or the table also has a label column.
    """
    raw, config = reading.raw, reading.config
    names = config.label_columns
    if not names:
        notes = [*raw.notes, *_one_of_several(reading)]
        return replace(reading, raw=replace(raw, notes=notes))
    missing = [name for name in names if name not in raw.columns]
    handed_on = reading.known_labels is not None and len(missing) == len(names) and config.label_column in raw.columns
    if missing and (handed_on or not reading.require_labels):
        return reading
    if missing:
        near = did_you_mean(missing[0], list(raw.columns))
        raise ValueError(f"{raw.source} has no column {missing[0]!r} (dataset.label_columns); {near}")
    if config.label_column in raw.columns:
        both = f"{raw.source} has a column {config.label_column!r}, and dataset.label_columns creates one"
        raise ValueError(f"{both}; remove one of them.")
    others = {name: cells for name, cells in raw.columns.items() if name not in names}
    together = list(zip(*(raw.columns[name] for name in names), strict=True))
    return replace(reading, raw=replace(raw, columns=others | {config.label_column: together}))


def one_hot_columns(raw: RawTable) -> list[str]:
    """Columns that look like one-hot classes: only 0 and 1, with exactly one 1 per row; empty if there are few."""
    names = [name for name, cells in raw.columns.items() if _is_binary(cells)]
    rows = zip(*(raw.columns[name] for name in names), strict=True)
    alone = all(sum(_number(cell) or 0 for cell in row) == 1 for row in rows)
    return names if len(names) >= _CLASSES and alone and len(raw) else []


def _one_of_several(reading: Reading) -> list[str]:
    """A line if the label column is one of several one-hot columns; empty for a trained model."""
    raw, label = reading.raw, reading.config.label_column
    if not reading.require_labels or reading.known_labels is not None or not _is_binary(raw.columns.get(label, [None])):
        return []
    names = one_hot_columns(raw)
    told = f"the label column {label!r} is one of {len(names)} that look like one class each ({_words(names)})"
    way = f"it only separates {label} from the others; dataset.label_columns reads all of them"
    return [f"{told}: {way}"] if label in names else []


def layout_hint(reading: Reading) -> str:
    """Hint at another layout if a column is missing: a public data set, or labels in several columns."""
    raw, config = reading.raw, reading.config
    preset = preset_of({raw.source})
    if preset is not None and any(getattr(config, option) != value for option, value in PRESETS[preset].items()):
        return f" For the data as published, use dataset.preset {preset}."
    found = one_hot_columns(raw) if reading.require_labels and not config.label_columns else []
    if found:
        return f" The columns {_words(found)} look like one class each: name them in dataset.label_columns."
    several = _zeros_and_ones(raw) if reading.require_labels and not config.label_columns else []
    named = "use --task multilabel and name them in dataset.label_columns."
    return f" The columns {_words(several)} look like several labels: {named}" if len(several) >= _CLASSES else ""


def _zeros_and_ones(raw: RawTable) -> list[str]:
    """Columns with only 0, 1 and blanks, and with both a 0 and a 1."""
    values = {name: {_number(cell) for cell in cells} for name, cells in raw.columns.items()}
    return [name for name, found in values.items() if {0.0, 1.0} <= found <= {0.0, 1.0, None}]


def _is_binary(cells: Sequence[Any]) -> bool:
    return all(_number(cell) in (0, 1) for cell in cells)


def _words(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names))


def _number(cell: Any) -> float | None:
    return cell_number(cell_text(cell))
