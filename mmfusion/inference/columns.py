"""What is told about columns that a model reads and rows to predict do not have."""

import logging
from collections.abc import Collection, Iterable, Sequence

from mmfusion.data import DatasetConfig, Processor
from mmfusion.names import near

logger = logging.getLogger(__name__)


def lacking_columns(processor: Processor, there: Collection[str]) -> list[str]:
    """The line about columns that the model reads and the rows do not have; empty where none is lacking.

    Args:
        processor: Of the model.
        there: Names of the columns that the rows have.
    """
    wanted = processor.table.names if processor.table is not None else []
    lacking = [name for name in wanted if name not in there]
    if not lacking:
        return []
    similar = {name: other for name in lacking if (other := near(name, sorted(set(there).difference(wanted))))}
    meant = f"; is {', '.join(f'{other!r} meant for {name!r}' for name, other in similar.items())}?" if similar else ""
    if len(lacking) == len(wanted):
        return [f"the rows have none of the columns {', '.join(lacking)}: the model judges without columns{meant}"]
    return [f"the rows have no column {', '.join(lacking)}, which the model reads: it counts as missing{meant}"]


def column_lines(processors: Sequence[Processor], dataset: DatasetConfig, there: Collection[str]) -> list[str]:
    """The lines about columns for the processors of one model or several: those that rows lack, and those that are
    named and no model reads.
    """
    read = {name for each in processors if each.table is not None for name in each.table.names}
    unread = [name for name in dataset.named_columns if name not in read]
    lines = [f"the model does not read the column {', '.join(unread)}, which the options name"] if unread else []
    return lines + [line for each in processors for line in lacking_columns(each, there)]


def warn_of(lines: Iterable[str]) -> None:
    """Log a warning a line, each once."""
    for line in dict.fromkeys(lines):
        logger.warning("%s", line)
