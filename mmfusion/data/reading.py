"""State passed between the reading steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from mmfusion.data.cases import CaseTable
from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import MemoryTable
from mmfusion.data.problems import Problem
from mmfusion.data.tables import RawTable


@dataclass(frozen=True)
class Columns:
    """Column of the file for each role, or None."""

    image: str = ""
    label: str | None = None
    id: str | None = None
    text: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Reading:
    """A data set between files and cases. A step returns a new one and changes nothing in place.

    Attributes:
        path: Folder of the data set, or its table: a file, or one in memory.
        config: How to read it.
        require_labels: False for prediction: labels, groups and splits may be missing.
        known_labels: Class names of a trained model; None uses those of the training rows.
        template: Text template of a trained model, whose columns may be missing, unlike those of
            ``dataset.text_template``.
        folder: Folder that paths in the files are relative to.
        raw: The rows as read from the files.
        columns: Roles of the columns of ``raw``.
    """

    path: Path | MemoryTable
    config: DatasetConfig
    require_labels: bool = True
    known_labels: tuple[str, ...] | None = None
    template: str | None = None
    folder: Path = Path()
    raw: RawTable = field(default_factory=lambda: RawTable("", {}))
    columns: Columns = Columns()


@dataclass(frozen=True)
class CaseReading(Reading):
    """A data set whose rows are cases.

    Attributes:
        cases: The rows in normal form, with the problems found so far.
    """

    cases: CaseTable = field(kw_only=True)

    def with_problems(self, found: Iterable[Problem]) -> CaseReading:
        """The same state with more problems."""
        return replace(self, cases=replace(self.cases, problems=[*self.cases.problems, *found]))
