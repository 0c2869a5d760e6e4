"""A step of reading: the label from columns of which each is a class."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mmfusion.data.presets import PRESETS, preset_of
from mmfusion.data.reading import Reading
from mmfusion.data.tables import RawTable
from mmfusion.names import did_you_mean
from mmfusion.text.template import cell_number, cell_text

#: So many columns of zeros and a one look like classes.
_CLASSES = 3


def read_label_columns(reading: Reading) -> Reading:
    """Put the cells of ``dataset.label_columns`` together in the label column; a later step makes one cell of them.

    Where the data are only predicted, the columns may be absent;
    so they may for a trained model where there is ``dataset.label_column`` in their place.
    Without the option, a label column that is one of such columns is told.

    Raises:
        ValueError: A column is not there, or the table has a label column too.
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
        both = f"{raw.source} has a column {config.label_column!r}, and dataset.label_columns makes one"
        raise ValueError(f"{both}; leave one of them out.")
    others = {name: cells for name, cells in raw.columns.items() if name not in names}
    together = list(zip(*(raw.columns[name] for name in names), strict=True))
    return replace(reading, raw=replace(raw, columns=others | {config.label_column: together}))


def one_hot_columns(raw: RawTable) -> list[str]:
    """Columns that look like classes: nothing but 0 and 1, and together exactly one 1 a row; none where few do."""
    names = [name for name, cells in raw.columns.items() if _is_binary(cells)]
    rows = zip(*(raw.columns[name] for name in names), strict=True)
    alone = all(sum(_number(cell) or 0 for cell in row) == 1 for row in rows)
    return names if len(names) >= _CLASSES and alone and len(raw) else []


def _one_of_several(reading: Reading) -> list[str]:
    """The line about a label column that is one of the columns of which each is a class; not for a trained model."""
    raw, label = reading.raw, reading.config.label_column
    if not reading.require_labels or reading.known_labels is not None or not _is_binary(raw.columns.get(label, [None])):
        return []
    names = one_hot_columns(raw)
    told = f"the label column {label!r} is one of {len(names)} that look like one class each ({_words(names)})"
    way = f"it tells {label} from all others; dataset.label_columns reads all of them"
    return [f"{told}: {way}"] if label in names else []


def layout_hint(reading: Reading) -> str:
    """What else may be meant where a table lacks a column: a public layout, or labels in several columns."""
    raw, config = reading.raw, reading.config
    preset = preset_of({raw.source})
    if preset is not None and any(getattr(config, option) != value for option, value in PRESETS[preset].items()):
        return f" The data as published are read with dataset.preset {preset}."
    found = one_hot_columns(raw) if reading.require_labels and not config.label_columns else []
    if found:
        return f" The columns {_words(found)} look like one class each: dataset.label_columns names them."
    several = _zeros_and_ones(raw) if reading.require_labels and not config.label_columns else []
    named = "--task multilabel --dataset.label_columns names them."
    return f" The columns {_words(several)} look like several labels: {named}" if len(several) >= _CLASSES else ""


def _zeros_and_ones(raw: RawTable) -> list[str]:
    """Columns of nothing but 0, 1 and blanks, with both a 0 and a 1."""
    values = {name: {_number(cell) for cell in cells} for name, cells in raw.columns.items()}
    return [name for name, found in values.items() if {0.0, 1.0} <= found <= {0.0, 1.0, None}]


def _is_binary(cells: Sequence[Any]) -> bool:
    return all(_number(cell) in (0, 1) for cell in cells)


def _words(names: Sequence[Any]) -> str:
    return ", ".join(map(str, names))


def _number(cell: Any) -> float | None:
    return cell_number(cell_text(cell))
