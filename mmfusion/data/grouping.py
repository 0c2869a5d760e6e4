"""Reading step: rows that are slices or views of one study become one case."""

import logging
import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from mmfusion.data.cases import object_array
from mmfusion.data.problems import Problem, ProblemKind
from mmfusion.data.reading import CaseReading
from mmfusion.images.dicom_files import place_in_series
from mmfusion.images.kinds import image_kind, may_be_dicom
from mmfusion.images.slices import equally_spaced
from mmfusion.names import natural_key
from mmfusion.text.template import cell_number, cell_text

logger = logging.getLogger(__name__)

#: Columns that must agree between the rows of a study, and the problem if they do not.
_ONE_VALUE = {
    "label": ProblemKind.STUDY_LABELS_DIFFER,
    "group": ProblemKind.STUDY_GROUPS_DIFFER,
    "split": ProblemKind.STUDY_SPLITS_DIFFER,
}


def slice_number(image: str) -> float | None:
    """The last number in a file name, which orders the slices of a study, or None."""
    numbers = re.findall(r"\d+", PurePosixPath(image).stem)
    return float(numbers[-1]) if numbers else None


def group_rows(reading: CaseReading) -> CaseReading:
    """Make one case per study instead of one per row, if ``dataset.study_column`` is set.

    A row that cannot be used (no file, no slice number, a slice or view that another row has) is a problem, and the
    study is kept without it. Label, group and split must be the same in all rows of a study.

    Raises:
        ValueError: No row has any of ``dataset.views``.
    """
    return _Grouping(reading).grouped() if reading.config.study_column else reading


class _Grouping:
    def __init__(self, reading: CaseReading) -> None:
        self.reading, self.cases, self.config = reading, reading.cases, reading.config
        # row n of the file has position n - 1
        self.columns = {name: self.cases.frame[name].tolist() for name in self.cases.frame.columns}
        self.studies = self._cells(self.config.study_column)
        self.views = self._cells(self.config.view_column)
        self.numbers = self._cells(self.config.slice_column)
        self.order = self._view_order() if self.config.view_column else []
        self.problems: list[Problem] = []
        self.image_rows: dict[str, int] = {}
        self.bad: dict[int, list[Problem]] = {}
        for problem in self.cases.problems:
            self.bad.setdefault(problem.row, []).append(problem)
        self.broken = {problem.row for problem in self.cases.problems if problem.kind is ProblemKind.BROKEN_LINE}

    def _cells(self, name: str | None) -> list[str | None]:
        raw = self.reading.raw
        return [cell_text(cell) for cell in raw.columns[name]] if name else [None] * len(raw)

    def _view_order(self) -> list[str]:
        there = sorted({view for view in self.views if view is not None}, key=natural_key)
        wanted = self.config.views or there
        if self.config.views and set(wanted).isdisjoint(there):
            named = f"{self.config.view_column} {' or '.join(map(repr, wanted))}"
            have = ", ".join(there) or "none"
            raise ValueError(f"dataset.views: no row of {self.cases.source} has {named}; available: {have}.")
        return list(wanted)

    def grouped(self) -> CaseReading:
        members: dict[Any, list[int]] = {}
        for row, (study, view) in enumerate(zip(self.studies, self.views, strict=True), start=1):
            if not self.order or view is None or view in self.order:
                members.setdefault((row,) if study is None else study, []).append(row)
        if lost := len({*self.studies} - {*members} - {None}):
            logger.warning("%s: %d studies have none of the views %s.", self.cases.source, lost, ", ".join(self.order))
        records = {}
        for study, rows in members.items():
            images, case = self._images(rows)
            records[case] = self._record(study, case, rows, images)
        index = pd.Index([*records], name="row")
        cells = {name: object_array([record[name] for record in records.values()]) for name in self.columns}
        frame, layout = pd.DataFrame(cells, index, dtype=object), "views" if self.order else "slices"
        cases = replace(self.cases, frame=frame, problems=self.problems, layout=layout, image_rows=self.image_rows)
        return replace(self.reading, cases=cases)

    def _images(self, rows: list[int]) -> tuple[tuple[str | None, ...] | None, int]:
        """The ordered images of a study, and the row that represents it."""
        placed: dict[Any, tuple[int, str]] = {}
        unusable: list[Problem] = []
        for row in rows:
            image = self.columns["image"][row - 1]
            if image is None or row in self.broken or any(map(_is_of_image, self.bad.get(row, ()))):
                continue
            place, column, cell, absent = self._place(row, image)
            if place is not None and place not in placed:
                placed[place] = row, image
                continue
            kind, message = ProblemKind.STUDY_PLACE_MISSING, absent
            if place is not None:
                kind, what = ProblemKind.STUDY_PLACE_TAKEN, "view" if self.order else "slice number"
                message = f"duplicate {what} in this study, first in row {placed[place][0]}"
            unusable.append(Problem.of_row(kind, row, self.columns["id"][row - 1], column, cell, message))
        case = min((row for row, _ in placed.values()), default=rows[0])
        self.problems += [replace(problem, part_of=case) for problem in unusable]
        for problem in (problem for row in rows for problem in self.bad.get(row, ())):
            of_image = _is_of_image(problem)
            self.problems.append(replace(problem, part_of=case) if of_image else replace(problem, row=case))
        if not placed:
            return None, case
        self.image_rows.update((image, row) for row, image in placed.values())
        if self.order:
            return tuple(placed[view][1] if view in placed else None for view in self.order), case
        ranks = sorted(placed)
        return tuple(placed[ranks[i]][1] for i in equally_spaced(len(ranks), self.config.max_slices)), case

    def _place(self, row: int, image: str) -> tuple[Any, str, str | None, str]:
        """View or slice number of a row, its column and cell, and the message if it is None."""
        if self.order:
            view = self.views[row - 1]
            return view, self.config.view_column or "", view, "the row has no view"
        if self.config.slice_column:
            cell = self.numbers[row - 1]
            return cell_number(cell), self.config.slice_column, cell, "the slice number is missing or not a number"
        if may_be_dicom(image) and image_kind(path := self.cases.image_root / image) == "dicom":
            nowhere = "the DICOM file has no position or instance number, or is damaged; set dataset.slice_column"
            return place_in_series(path), "image", image, nowhere
        return slice_number(image), "image", image, "the file name has no slice number; set dataset.slice_column"

    def _record(self, study: Any, case: int, rows: list[int], images: tuple[str | None, ...] | None) -> dict[str, Any]:
        """The study as one row."""
        whole = [row for row in rows if row not in self.broken] or rows
        values = {
            name: list(dict.fromkeys(cells[row - 1] for row in whole if cells[row - 1] is not None))
            for name, cells in self.columns.items()
        }
        record: dict[str, Any] = {name: found[0] if len(found) == 1 else None for name, found in values.items()}
        record |= {"text": " ".join(values["text"]) or None, "image": images}
        is_named = not isinstance(study, tuple)
        columns = self.reading.columns
        if columns.id is None or record["id"] is None:
            record["id"] = study if is_named else self.columns["id"][whole[0] - 1]
        if columns.group is None:
            record["group"] = study if is_named else None
        wrong = []
        if not is_named:
            wrong.append((ProblemKind.STUDY_UNNAMED, self.config.study_column, "the row has no study"))
        for name, kind in _ONE_VALUE.items():
            if len(values[name]) > 1:
                record[name] = values[name][0]
                message = f"the rows of a study must agree, but these have {', '.join(values[name])}"
                wrong.append((kind, name, message))
        self.problems += [Problem.of_row(kind, case, record["id"], name, None, text) for kind, name, text in wrong]
        return record


def _is_of_image(problem: Problem) -> bool:
    """Whether a row's problem costs the study only that row's image; a wrong split affects the whole study."""
    return problem.kind is not ProblemKind.UNKNOWN_SPLIT
