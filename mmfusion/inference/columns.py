"""Columns that a model needs: warnings about missing ones, and name mapping."""

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

#: Keys of a row besides the model's columns and the metadata of the text template.
ROW_KEYS = ("id", "image", "images", "roi", "bag", "text")


def read_columns(processor: Processor) -> list[str]:
    """Names of the columns that a model uses, in its text template or as inputs."""
    fields = template_fields(processor.text_template or "") if processor.tokenizer is not None else ()
    return [*dict.fromkeys([*(processor.table.names if processor.table is not None else ()), *fields])]


def check_columns(
    processors: Sequence[Processor], columns: Mapping[str, str], further: Collection[str] = ()
) -> dict[str, str]:
    """Check and return a column mapping: name used by the model -> name in the rows.

    Args:
        processors: Processors of one or several models.
        columns: The mapping.
        further: Names of columns with another role in the data set.

    Raises:
        ValueError: No model uses a column of that name.
    """
    read = [name for each in processors for name in read_columns(each)]
    known = [*dict.fromkeys([*read, *ROW_KEYS, *NORMAL_COLUMNS, *further])]
    if unknown := [name for name in columns if name not in known]:
        raise ValueError(f"columns: the model uses no column {unknown[0]!r}; {did_you_mean(unknown[0], known)}")
    return dict(columns)


def lacking_columns(processor: Processor, there: Collection[str]) -> list[str]:
    """A warning about columns that the model uses but the rows lack; empty if there are none.

    Args:
        processor: Processor of the model.
        there: Names of the columns of the rows.
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
        meant += f"{'' if similar else ';'} map them with dataset.columns: {{{example}}}"
    if len(lacking) == len(wanted):
        return [f"the rows have none of the columns {', '.join(lacking)}, which the model uses{meant}"]
    return [f"the rows have no column {', '.join(lacking)}, which the model uses; treated as missing{meant}"]


def column_lines(processors: Sequence[Processor], dataset: DatasetConfig, there: Collection[str]) -> list[str]:
    """Warnings about columns for one or several processors: those that rows lack, and those named but unused.


    Raises:
        ValueError: ``dataset.columns`` maps a column that no model uses.
    """
    check_columns(processors, dataset.columns, dataset.roles)
    read = {name for each in processors if each.table is not None for name in each.table.names}
    unread = [name for name in dataset.named_columns if name not in read]
    lines = [f"the model does not use the column {', '.join(unread)}, which the options name"] if unread else []
    return lines + [line for each in processors for line in lacking_columns(each, there)]


def unread_keys(rows: Sequence[Mapping[str, object]], processors: Sequence[Processor]) -> list[str]:
    """A warning about unused keys of rows, each with the most similar name that is needed but missing."""
    given = dict.fromkeys(str(key) for row in rows for key in row)
    read = [*ROW_KEYS, *dict.fromkeys(name for each in processors for name in read_columns(each))]
    unread = [name for name in given if name not in (*read, *NORMAL_COLUMNS)]
    if not unread:
        return []
    lacking = [name for name in read if name not in given]
    meant = {name: other for name in unread if (other := near(name, lacking))}
    told = [f"{name!r} (did you mean {meant[name]!r}?)" if name in meant else repr(name) for name in unread]
    return [f"the rows have keys that the model does not use: {', '.join(told)}"]


def modalities_of(processors: Iterable[Processor]) -> dict[str, bool]:
    """Modality -> whether any of the models uses it."""
    each = list(processors)
    return {
        "image": any(processor.reads_images for processor in each),
        "text": any(processor.tokenizer is not None for processor in each),
        "table": any(processor.table is not None for processor in each),
    }


def unseen_modalities(members: Sequence[Any], inputs: Collection[str]) -> list[str]:
    """A warning for each modality that a model uses but no row has.

    Args:
        members: The predictors.
        inputs: Modalities of each row, as in :class:`~mmfusion.inference.stream.Prediction`.
    """
    seen = {kind for words in inputs for kind in words.split("+")}
    read = modalities_of(each.processor for each in members)
    return alone(read, {kind: kind in seen for kind in read}) if inputs else []


def alone(read: Mapping[str, bool], there: Mapping[str, Any]) -> list[str]:
    """A warning for each modality that is used but absent while another is present."""
    others = " and the ".join(_SIDES[kind] for kind, is_read in read.items() if is_read and there[kind])
    lacking = [kind for kind, is_read in read.items() if is_read and not there[kind]] if others else []
    return [f"no row has {_ONES[kind]}: the prediction is based on the {others} only" for kind in lacking]


def warn_of(lines: Iterable[str]) -> None:
    """Log each line once as a warning."""
    for line in dict.fromkeys(lines):
        logger.warning("%s", line)
