"""The cases of a data set in normal form, with the problems found in them."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mmfusion.data.config import DatasetConfig
from mmfusion.data.labels import in_order
from mmfusion.data.problems import BadRowsError, Problem, ProblemKind, no_such_split
from mmfusion.data.splits import group_split
from mmfusion.task import DEFAULT, Task, task_named

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

#: Columns of the normal form; the metadata columns follow them.
NORMAL_COLUMNS = ("id", "image", "label", "text", "group", "split")
_LISTED = 20


@dataclass
class CaseTable:
    """The cases of a data set in normal form.

    Attributes:
        frame: One case per row; the index is the data row in the file (1-based). Columns: ``id``; ``image``, a path
            relative to ``image_root`` (a tuple of paths for a case with several); ``label``; ``text``, the free text;
            ``group``; ``split`` (``train``, ``val``, ``test``); then the metadata. Every cell is stripped text, or
            None if missing.
        image_root: Folder that contains all images.
        problems: Problems of the rows.
        source: Name of the table in messages.
        known_labels: Class names given to :func:`read_cases`, if any.
        layout: What an ``image`` cell holds: ``image``, one path; ``slices``, a tuple of paths in their order;
            ``views``, a tuple with a path or None per view; ``bags``, the path of a bag of feature vectors. A
            case without images has None.
        regions: Index -> region of interest (x0, y0, x1, y1) in pixels; None if the data have no such columns.
        image_rows: Image -> its data row, if rows are the images of one case.
        notes: Log lines about how the files were read.
        slice: Slice to use of a file with several (``dataset.slice``).
        slices: Slices to read of a file (``dataset.slices``).
        task: Task of the labels (``dataset.task``).
    """

    frame: pd.DataFrame
    image_root: Path
    problems: list[Problem] = field(default_factory=list)
    source: str = "the table"
    known_labels: tuple[str, ...] | None = None
    layout: str = "image"
    regions: dict[int, tuple[float, ...]] | None = None
    image_rows: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    slice: int | str | None = None
    slices: int | str | None = None
    task: str = DEFAULT

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def one_path(self) -> bool:
        """Whether an ``image`` cell is one path rather than a tuple."""
        return self.layout in ("image", "bags")

    @property
    def labels(self) -> list[str]:
        """Class names: those given when reading, else those of the training rows (of all rows before a split)."""
        if self.known_labels is not None:
            return list(self.known_labels)
        rows = self.frame[self.frame["split"] == "train"] if self.splits else self.frame
        return in_order({part for cell in rows["label"].dropna().unique() for part in self.question.parts(cell)})

    @cached_property
    def question(self) -> Task:
        """The task of the labels."""
        return task_named(self.task, self.known_labels or ())

    @property
    def splits(self) -> dict[str, int]:
        """Number of rows per split; empty before a split is drawn."""
        counts = self.frame["split"].value_counts()
        return {name: int(counts[name]) for name in ("train", "val", "test") if name in counts}

    @property
    def metadata(self) -> list[str]:
        """Names of the metadata columns."""
        return [name for name in self.frame.columns if name not in NORMAL_COLUMNS]

    @property
    def bad_rows(self) -> set[int]:
        """Indices of the cases that training rejects."""
        return {problem.row for problem in self.problems if problem.spoils_case}

    def resolve(self, on_bad_row: str = "fail") -> CaseTable:
        """Return the table without problems.

        Args:
            on_bad_row: ``fail`` rejects a table with bad rows; ``skip`` drops them. A case with further images only
                loses its bad ones.

        Raises:
            ValueError: There are bad rows and ``fail``, no row is left, or ``on_bad_row`` is unknown.
        """
        if on_bad_row not in ("fail", "skip"):
            raise ValueError(f"on_bad_row must be 'fail' or 'skip', got {on_bad_row!r}.")
        warnings = [problem for problem in self.problems if problem.warning]
        self._warn("%s: %s", warnings, "%s: ... and %d more.")
        bad = [problem for problem in self.problems if not problem.warning]
        if not bad:
            return self
        if on_bad_row == "fail":
            raise BadRowsError(self._refusal(bad))
        parts = [problem for problem in bad if problem.part_of is not None]
        self._warn("%s: %s; its case is kept without it", parts, "%s: ... and %d more images dropped.")
        bad = [problem for problem in bad if problem.part_of is None]
        kept = replace(self, frame=self.frame.drop(index=sorted(self.bad_rows)), problems=warnings)
        # A class may just have lost its last training row.
        bad += (untrained := list(kept.untrained_labels()))
        kept = replace(kept, frame=kept.frame.drop(index=[problem.row for problem in untrained]))
        if not len(kept):
            raise ValueError(f"{self.source}: none of {len(self)} rows is usable; the first problem: {bad[0]}")
        if rows := sorted({problem.row for problem in bad}):
            told = _listed(_by_label(bad)[0])
            logger.warning("%s: dropped %d of %d rows:\n%s", self.source, len(rows), len(self), "\n".join(told))
        return kept

    def _warn(self, line: str, problems: Sequence[Problem], more: str) -> None:
        for problem in problems[:_LISTED]:
            logger.warning(line, self.source, problem)
        if len(problems) > _LISTED:
            logger.warning(more, self.source, len(problems) - _LISTED)

    def _refusal(self, bad: Sequence[Problem]) -> str:
        rows = len({problem.row for problem in bad})
        count = f"{len(bad)} problem{'s' if len(bad) > 1 else ''} in {rows} of {len(self)} rows"
        lines = [f"{self.source}: {count}; fix them, or drop those rows with --on-bad-row skip:"]
        told, labels = _by_label(bad)
        lines += _listed(told)
        if labels and self.known_labels is not None:
            named = ", ".join(f"{label}: ..." for label in labels[:_LISTED])
            lines.append(f"  dataset.label_map maps these labels to the classes of the model: {{{named}}}")
        return "\n".join(lines)

    def check_labels(self, config: DatasetConfig) -> CaseTable:
        """Check that the labels are class names, and return the table itself.

        Raises:
            ValueError: Labels are spellings of one name, numbers, or several in a cell; one line for each.
        """
        column = ", ".join(config.label_columns) or config.label_column
        cells = self.frame["label"].tolist()
        if not config.label_map and (faults := list(self.question.faults(cells, column, self.labels))):
            raise ValueError(f"{self.source}: {'; '.join(faults)}.")
        return self

    def untrained_labels(self) -> Iterator[Problem]:
        """Rows outside the training split whose class has no (usable) training row."""
        if self.known_labels is not None or not self.splits:
            return
        good = self.frame[~self.frame.index.isin(self.bad_rows)]
        cells, parts = good["label"][good["split"] == "train"].dropna().unique(), self.question.parts
        trained = {part for cell in cells for part in parts(cell)}
        for row, id_, label, split in good[["id", "label", "split"]].itertuples(name=None):
            if label is not None and split != "train" and not trained.issuperset(parts(label)):
                message = f"unknown label: in no training row, only in {split}"
                yield Problem(ProblemKind.UNTRAINED_LABEL, row, id_, "label", label, message)

    def select(self, split: str) -> CaseTable:
        """Return the rows of one split.

        Raises:
            ValueError: The split has no rows.
        """
        frame = self.frame[self.frame["split"] == split]
        if not len(frame):
            raise no_such_split(self.source, split, self.splits)
        rows = set(frame.index)
        problems = [problem for problem in self.problems if problem.case in rows]
        # The classes stay those of the whole table: a test split may miss one.
        return replace(self, frame=frame, problems=problems, known_labels=tuple(self.labels))

    def split_or_draw(self, config: DatasetConfig, seed: int = 0) -> CaseTable:
        """Return the table itself if it has a split, else draw a grouped, stratified one.

        Raises:
            ValueError: Too few groups to split.
        """
        if self.splits:
            return self
        labels, groups = self.strata(), self.frame["group"].tolist()
        val, test = config.val_fraction, config.test_fraction
        fractions = {"train": 1 - val - test, "val": val, "test": test}
        try:
            drawn = group_split(labels, groups, fractions=fractions, seed=seed)
        except ValueError as error:
            if not self.frame["group"].notna().any():
                raise
            column = config.group_column or config.study_column or "group"
            raise ValueError(
                f"{error} The groups are the values of {column!r}; if these are not patients, choose another column "
                "with dataset.group_column, or none with dataset.group_column none."
            ) from None
        return replace(self, frame=self.frame.assign(split=drawn))

    def strata(self) -> list[str]:
        """Stratum of each row for drawing a split; empty for rows without a label."""
        cells = self.frame["label"].tolist()
        found = iter(self.question.strata([cell for cell in cells if cell is not None]))
        return ["" if cell is None else next(found) for cell in cells]

    def fingerprint(self) -> str:
        """SHA-256 of ids, image paths, labels, texts, groups, splits and metadata, in the order of the ids."""
        digest = hashlib.sha256(json.dumps(list(self.frame.columns)).encode())
        for row in self.frame.sort_values("id", kind="stable").itertuples(index=False, name=None):
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


def _by_label(problems: Sequence[Problem]) -> tuple[list[str], list[str | None]]:
    """Problems as lines, with one line for all rows of an unknown label; and these labels."""
    rows: dict[str | None, list[Problem]] = {}
    for problem in problems:
        if problem.kind is ProblemKind.UNKNOWN_LABEL:
            rows.setdefault(problem.value, []).append(problem)
    many = {label: found for label, found in rows.items() if len(found) > 1}
    others = [p for p in problems if p.kind is not ProblemKind.UNKNOWN_LABEL or p.value not in many]
    told = [f"{p[0].column} {label!r} in {len(p):,} rows: {p[0].message}" for label, p in many.items()]
    return [*told, *map(str, sorted(others, key=lambda problem: problem.row))], list(rows)


def _listed(lines: Sequence[str]) -> list[str]:
    """The first lines, indented, and the number of others."""
    more = [f"  ... and {len(lines) - _LISTED} more"] if len(lines) > _LISTED else []
    return [*(f"  {line}" for line in lines[:_LISTED]), *more]


def object_array(cells: Sequence[Any]) -> np.ndarray:
    """Object array that keeps None as None and a tuple as one cell."""
    return np.fromiter(cells, dtype=object, count=len(cells))
