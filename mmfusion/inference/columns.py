"""Columns that a model reads: what is told where rows do not have them, and names that map one to the other."""

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from mmfusion.data import DatasetConfig, Processor
from mmfusion.data.cases import NORMAL_COLUMNS
from mmfusion.names import did_you_mean, near
from mmfusion.text.template import template_fields

logger = logging.getLogger(__name__)

_SIDES = {"image": "image", "text": "text", "table": "columns"}
_ONES = {"image": "an image", "text": "a text", "table": "any of the columns"}

#: what a row may hold beside the model's columns and the metadata of the text template.
ROW_KEYS = ("id", "image", "images", "roi", "bag", "text")


def read_columns(processor: Processor) -> list[str]:
    """Names of the columns that a model reads: in its text template, and as inputs of their own."""
    fields = template_fields(processor.text_template or "") if processor.tokenizer is not None else ()
    return [*dict.fromkeys([*(processor.table.names if processor.table is not None else ()), *fields])]


def check_columns(
    processors: Sequence[Processor], columns: Mapping[str, str], further: Collection[str] = ()
) -> dict[str, str]:
    """The map of columns itself: name that a model reads -> name in the rows.

    Args:
        processors: Of the model, or of several.
        columns: The map.
        further: Names that the data set gives a meaning of its own.

    Raises:
        ValueError: No model reads a column of such a name.
    """
    read = [name for each in processors for name in read_columns(each)]
    known = [*dict.fromkeys([*read, *ROW_KEYS, *NORMAL_COLUMNS, *further])]
    if unknown := [name for name in columns if name not in known]:
        raise ValueError(f"columns: the model reads no column {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
    return dict(columns)


def lacking_columns(processor: Processor, there: Collection[str]) -> list[str]:
    """The line about columns that the model reads and the rows do not have; empty where none is lacking.

    Args:
        processor: Of the model.
        there: Names of the columns that the rows have.
    """
    wanted = read_columns(processor)
    lacking = [name for name in wanted if name not in there]
    if not lacking:
        return []
    others = sorted(set(there).difference(wanted, ROW_KEYS, NORMAL_COLUMNS))
    similar = {name: other for name in lacking if (other := near(name, others))}
    meant = f"; is {', '.join(f'{other!r} meant for {name!r}' for name, other in similar.items())}?" if similar else ""
    if others:
        example = ", ".join(f"{name}: {similar.get(name, '...')}" for name in lacking)
        meant += f"{'' if similar else ';'} dataset.columns says which is which: {{{example}}}"
    if len(lacking) == len(wanted):
        return [f"the rows have none of the columns {', '.join(lacking)}, which the model reads{meant}"]
    return [f"the rows have no column {', '.join(lacking)}, which the model reads: it counts as missing{meant}"]


def column_lines(processors: Sequence[Processor], dataset: DatasetConfig, there: Collection[str]) -> list[str]:
    """The lines about columns for the processors of one model or several: those that rows lack, and those that are
    named and no model reads.

    Raises:
        ValueError: ``dataset.columns`` names a column that no model reads.
    """
    check_columns(processors, dataset.columns, dataset.roles)
    read = {name for each in processors if each.table is not None for name in each.table.names}
    unread = [name for name in dataset.named_columns if name not in read]
    lines = [f"the model does not read the column {', '.join(unread)}, which the options name"] if unread else []
    return lines + [line for each in processors for line in lacking_columns(each, there)]


def unread_keys(rows: Sequence[Mapping[str, object]], processors: Sequence[Processor]) -> list[str]:
    """The line about keys of rows that no model reads, each with the nearest one that is read and lacking."""
    given = dict.fromkeys(str(key) for row in rows for key in row)
    read = [*ROW_KEYS, *dict.fromkeys(name for each in processors for name in read_columns(each))]
    unread = [name for name in given if name not in (*read, *NORMAL_COLUMNS)]
    if not unread:
        return []
    lacking = [name for name in read if name not in given]
    meant = {name: other for name in unread if (other := near(name, lacking))}
    told = [f"{name!r} (did you mean {meant[name]!r}?)" if name in meant else repr(name) for name in unread]
    return [f"the rows have keys that the model does not read: {', '.join(told)}"]


def modalities_of(processors: Iterable[Processor]) -> dict[str, bool]:
    """Modality -> whether any of the models reads it."""
    each = list(processors)
    return {
        "image": any(processor.reads_images for processor in each),
        "text": any(processor.tokenizer is not None for processor in each),
        "table": any(processor.table is not None for processor in each),
    }


def unseen_modalities(members: Sequence[Any], inputs: Collection[str]) -> list[str]:
    """A line for each modality that a model reads and none of several rows has.

    Args:
        members: The predictors.
        inputs: What each row was judged on, as in :class:`~mmfusion.inference.stream.Prediction`.
    """
    seen = {kind for words in inputs for kind in words.split("+")}
    read = modalities_of(each.processor for each in members)
    return alone(read, {kind: kind in seen for kind in read}) if inputs else []


def alone(read: Mapping[str, bool], there: Mapping[str, Any]) -> list[str]:
    """A line for each modality that is read and not there, where another is."""
    others = " and the ".join(_SIDES[kind] for kind, is_read in read.items() if is_read and there[kind])
    lacking = [kind for kind, is_read in read.items() if is_read and not there[kind]] if others else []
    return [f"no row has {_ONES[kind]}: the model judges from the {others} alone" for kind in lacking]


def warn_of(lines: Iterable[str]) -> None:
    """Log a warning a line, each once."""
    for line in dict.fromkeys(lines):
        logger.warning("%s", line)
