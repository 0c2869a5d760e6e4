"""Problems of rows of a data set. Code depends on the kind of a problem; the message is for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from mmfusion.names import clip

#: A cell as text, or None if missing.
Cell: TypeAlias = str | None


class Severity(Enum):
    """Consequence of a problem for its row."""

    #: The row is valid: the problem is reported and the row is kept.
    WARNING = "warning"
    #: Training and evaluation reject the row, but a model can still predict it reliably.
    READABLE = "readable"
    #: The row is unusable.
    ERROR = "error"


class ProblemKind(Enum):
    """Kinds of problems; the values are their names in reports."""

    BROKEN_LINE = "broken line"
    MISSING_ID = "missing id"
    DUPLICATE_ID = "duplicate id"
    MISSING_IMAGE = "missing image file"
    OUTSIDE_ROOT = "image outside the root"
    UNREADABLE_IMAGE = "unreadable image"
    BLANK_IMAGE = "blank image"
    UNREADABLE_BAG = "unreadable bag"
    NO_CONTENT = "neither image nor text"
    MISSING_LABEL = "missing label"
    UNKNOWN_LABEL = "unknown label"
    UNTRAINED_LABEL = "label without training rows"
    MISSING_SPLIT = "missing split"
    UNKNOWN_SPLIT = "unknown split"
    GROUP_IN_TWO_SPLITS = "group in two splits"
    REGION_NOT_NUMERIC = "region that is not four numbers"
    REGION_EMPTY = "empty region"
    REGION_OUTSIDE_IMAGE = "region outside its image"
    STUDY_UNNAMED = "row without a study"
    STUDY_PLACE_MISSING = "row without a slice number or view"
    STUDY_PLACE_TAKEN = "slice number or view twice in a study"
    STUDY_WITHOUT_IMAGES = "study without a usable image"
    STUDY_LABELS_DIFFER = "study with several labels"
    STUDY_GROUPS_DIFFER = "study with several groups"
    STUDY_SPLITS_DIFFER = "study with several splits"

    @property
    def severity(self) -> Severity:
        """Consequence of the problem for its row."""
        return _SEVERITIES.get(self, Severity.ERROR)


#: Severities other than the default.
_SEVERITIES = {
    ProblemKind.GROUP_IN_TWO_SPLITS: Severity.WARNING,
    ProblemKind.MISSING_ID: Severity.READABLE,
    ProblemKind.DUPLICATE_ID: Severity.READABLE,
}


@dataclass(frozen=True)
class Problem:
    """One problem of one row.

    Attributes:
        kind: Kind of the problem; all behavior depends on it.
        row: Data row in the file, 1-based, without the header.
        id: The row's id, ``row-N`` if it has none.
        column: Column of the file, or the input concerned.
        value: The cell, or None.
        message: Description for people.
        part_of: Index of the case that is kept without this image; None if the case itself is bad.
    """

    kind: ProblemKind
    row: int
    id: str
    column: str
    value: str | None
    message: str
    part_of: int | None = None

    @classmethod
    def of_row(
        cls, kind: ProblemKind, row: int, id_: Cell, column: Cell, value: Cell, message: str, part_of: int | None = None
    ) -> Problem:
        """A problem of a row whose id or column may be missing."""
        return cls(kind, row, id_ if id_ is not None else f"row-{row}", column or "", value, message, part_of)

    @property
    def case(self) -> int:
        """Index of the case in the table."""
        return self.row if self.part_of is None else self.part_of

    @property
    def warning(self) -> bool:
        """Whether the row is kept."""
        return self.kind.severity is Severity.WARNING

    @property
    def spoils_case(self) -> bool:
        """Whether training rejects the whole case rather than one of its images."""
        return not self.warning and self.part_of is None

    @property
    def unreadable(self) -> bool:
        """Whether the case is unusable even for prediction."""
        return self.spoils_case and self.kind.severity is not Severity.READABLE

    def __str__(self) -> str:
        value = "" if self.value is None else f" {clip(repr(self.value))}"
        return f"row {self.row} ({clip(self.id)}), {clip(self.column)}{value}: {self.message}"


def no_such_split(source: str, split: str, there: Mapping[str, int]) -> ValueError:
    """Error for a split without rows, listing the available splits with their rows."""
    has = ", ".join(f"{name} ({count})" for name, count in there.items()) or "none"
    return ValueError(f"{source} has no rows of the split {split!r}; it has {has}.")


class BadRowsError(ValueError):
    """Unusable rows: the first line gives the number and the fix, the others list them."""
