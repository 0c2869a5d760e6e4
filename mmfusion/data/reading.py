"""The value that the steps of reading pass on."""

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
    """Which column of the file is which; None where there is none."""

    image: str = ""
    label: str | None = None
    id: str | None = None
    text: str | None = None
    group: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class Reading:
    """A data set on its way from files to cases. A step takes one and returns another, and changes nothing in place.

    Attributes:
        path: The data set's folder, or its table: a file, or one in memory.
        config: How to read it.
        require_labels: False where the data are only predicted: labels, groups and splits may be absent.
        known_labels: Class names of a trained model; None takes those of the training rows.
        template: Text template of a trained model, whose columns may be absent; ``dataset.text_template`` is asked for.
        folder: Folder that the files' paths are relative to.
        raw: The rows as they stand in the files.
        columns: Which column of ``raw`` is which.
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
    """A data set whose rows have become cases.

    Attributes:
        cases: The rows in normal form, with the problems found so far.
    """

    cases: CaseTable = field(kw_only=True)

    def with_problems(self, found: Iterable[Problem]) -> CaseReading:
        """The same with more problems."""
        return replace(self, cases=replace(self.cases, problems=[*self.cases.problems, *found]))
