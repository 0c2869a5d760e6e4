"""What is told about the columns of rows to predict: those that are not there, and cells that no model can take."""

import logging
from collections.abc import Collection, Iterable
from typing import TYPE_CHECKING

from mmfusion.data import CaseTable, Processor
from mmfusion.names import near

if TYPE_CHECKING:
    from mmfusion.inference.predictor import Predictor

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


def tell_columns(predictor: "Predictor", cases: CaseTable, source: str) -> None:
    """Warn of lacking columns, and of cells that the model, or one of several, cannot take as they are."""
    lines: dict[str, None] = {}
    for member in predictor.members:
        if (table := member.processor.table) is not None:
            odd = table.encode_columns(cases.frame, member.processor.missing_values).oddities
            lines |= dict.fromkeys([*lacking_columns(member.processor, cases.metadata), *odd.lines(table)])
    warn_of(lines, source)


def warn_of(lines: Iterable[str], source: str = "") -> None:
    """Log a warning a line."""
    for line in lines:
        logger.warning("%s%s", f"{source}: " if source else "", line)
