"""Cases of several rows: slices of a study, views of a patient; and regions of interest."""

from __future__ import annotations

import logging
import math
import re
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from mmfusion.data.config import DatasetConfig
from mmfusion.data.formats import RawTable
from mmfusion.data.table import CaseTable, Problem
from mmfusion.names import natural_key
from mmfusion.text.template import cell_text

logger = logging.getLogger(__name__)

#: columns in which the rows of a study have to agree.
_ONE_VALUE = ("label", "group", "split")


def check_structure(config: DatasetConfig) -> None:
    """Refuse options that do not go together.

    Raises:
        ValueError: such options, or one out of range.
    """
    rules = [
        (
            config.study_column and config.view_columns,
            "study_column (views as rows) and view_columns (views as columns)",
        ),
        (config.view_column and config.slice_column, "view_column (views) and slice_column (slices)"),
        (
            config.roi_columns and (config.study_column or config.view_columns),
            "roi_columns and cases of several images",
        ),
        (config.image_column and config.view_columns, "image_column and view_columns"),
        (config.views and config.view_columns, "views (of view_column) and view_columns"),
    ]
    for both, what in rules:
        if both:
            raise ValueError(f"dataset: {what} do not go together; leave one of them out.")
    for option in ("slice_column", "view_column", "max_slices"):
        if getattr(config, option) is not None and config.study_column is None:
            raise ValueError(f"dataset.{option} needs dataset.study_column, which says what rows are one case.")
    if config.views and config.view_column is None:
        raise ValueError("dataset.views needs dataset.view_column, which names the view of each row.")
    if config.max_slices is not None and (config.max_slices < 1 or config.view_column):
        raise ValueError(
            f"dataset.max_slices={config.max_slices} has to be at least 1, and goes with slices, not views."
        )
    for option in ("views", "view_columns", "roi_columns"):
        names = getattr(config, option)
        if len(set(names)) < len(names):
            raise ValueError(f"dataset.{option} names one thing twice: {', '.join(names)}.")
    if len(config.roi_columns) not in (0, 4):
        raise ValueError(f"dataset.roi_columns are four, [x0, y0, x1, y1]; got {len(config.roi_columns)}.")


def slice_number(image: str) -> float | None:
    """The last number in a file's name, by which a study is ordered; None where there is none."""
    numbers = re.findall(r"\d+", PurePosixPath(image).stem)
    return float(numbers[-1]) if numbers else None


def equally_spaced(count: int, most: int | None) -> list[int]:
    """Positions of at most ``most`` of ``count`` slices, the first and the last among them; of one, the middle."""
    if most is None or count <= most:
        return list(range(count))
    if most == 1:
        return [count // 2]
    return [int(i) for i in np.linspace(0, count - 1, most).round()]


def group_rows(cases: CaseTable, raw: RawTable, config: DatasetConfig, *, own_group: bool, own_id: bool) -> CaseTable:
    """The table with one case per study in place of one per row.

    A row that cannot be used (no file, no slice number, a slice or view that another row has) is a problem of its own,
    and the study goes on without it. Label, group and split have to be one for all rows of a study.

    Args:
        cases: one case per row, with the problems found so far.
        raw: the rows as they stand.
        config: ``study_column`` and what goes with it.
        own_group: the study is the group, since no column says otherwise.
        own_id: the study is the id.

    Raises:
        ValueError: no row has any of ``config.views``.
    """
    return _Grouping(cases, raw, config, own_group, own_id).table()


class _Grouping:
    def __init__(self, cases: CaseTable, raw: RawTable, config: DatasetConfig, own_group: bool, own_id: bool) -> None:
        self.cases, self.config = cases, config
        self.own_group, self.own_id = own_group, own_id
        # row n of the file lies at position n - 1
        self.columns = {name: cases.frame[name].tolist() for name in cases.frame.columns}
        assert config.study_column is not None
        self.studies = [cell_text(cell) for cell in raw.columns[config.study_column]]
        self.views = self._cells(raw, config.view_column)
        self.numbers = self._cells(raw, config.slice_column)
        self.order = self._view_order() if config.view_column else []
        self.problems: list[Problem] = []
        self.bad: dict[int, list[Problem]] = {}
        for problem in cases.problems:
            self.bad.setdefault(problem.row, []).append(problem)
        self.broken = {problem.row for problem in cases.problems if problem.column == "line"}

    @staticmethod
    def _cells(raw: RawTable, name: str | None) -> list[str | None]:
        return [cell_text(cell) for cell in raw.columns[name]] if name else [None] * len(raw)

    def _view_order(self) -> list[str]:
        there = sorted({view for view in self.views if view is not None}, key=natural_key)
        if not self.config.views:
            return there
        if not set(self.config.views) & set(there):
            raise ValueError(
                f"dataset.views: no row of {self.cases.source} has {self.config.view_column} "
                f"{' or '.join(map(repr, self.config.views))}; there are {', '.join(there) or 'none'}."
            )
        return list(self.config.views)

    def table(self) -> CaseTable:
        members: dict[Any, list[int]] = {}
        everyone = set()
        for row, study in enumerate(self.studies, start=1):
            everyone.add(study)
            view = self.views[row - 1]
            if self.order and view is not None and view not in self.order:
                continue
            members.setdefault((row,) if study is None else study, []).append(row)
        if lost := len(everyone) - len({*members} & everyone) - (None in everyone):
            logger.warning("%s: %d studies have none of the views %s.", self.cases.source, lost, ", ".join(self.order))
        image_rows: dict[str, int] = {}
        index, records = [], []
        for study, rows in members.items():
            images, case = self._images(rows, image_rows)
            index.append(case)
            records.append(self._record(study, case, rows, images))
        columns = {name: pd.Series([record[name] for record in records], dtype=object) for name in self.columns}
        grouped = pd.DataFrame(columns, dtype=object).set_axis(pd.Index(index, name="row"))
        return replace(
            self.cases,
            frame=grouped,
            problems=self.problems,
            layout="views" if self.order else "slices",
            image_rows=image_rows,
        )

    def _images(self, rows: list[int], image_rows: dict[str, int]) -> tuple[tuple[str | None, ...] | None, int]:
        """The images of a study in their order, and the row that stands for it."""
        placed: dict[Any, tuple[int, str]] = {}
        unusable: list[tuple[int, str, str | None, str]] = []
        for row in rows:
            image = self.columns["image"][row - 1]
            if image is None or row in self.broken or any(map(self._is_of_image, self.bad.get(row, ()))):
                continue
            place, column, value, message = self._place(row, image)
            if place is None:
                unusable.append((row, column, value, message))
            elif place in placed:
                what = "view" if self.order else "slice number"
                unusable.append((row, column, value, f"the study has this {what} already, in row {placed[place][0]}"))
            else:
                placed[place] = row, image
        case = min((row for row, _ in placed.values()), default=rows[0])
        for row, column, value, message in unusable:
            id_ = self.columns["id"][row - 1] or f"row-{row}"
            self.problems.append(Problem(row, id_, column, value, message, part_of=case))
        for row in rows:
            for problem in self.bad.get(row, ()):
                of_image = self._is_of_image(problem)
                self.problems.append(replace(problem, part_of=case) if of_image else replace(problem, row=case))
        if not placed:
            return None, case
        image_rows.update((image, row) for row, image in placed.values())
        if self.order:
            return tuple(placed[view][1] if view in placed else None for view in self.order), case
        ranks = sorted(placed)
        kept = equally_spaced(len(ranks), self.config.max_slices)
        return tuple(placed[ranks[i]][1] for i in kept), case

    def _is_of_image(self, problem: Problem) -> bool:
        """Whether a row's problem is that of its image; a wrong split is the whole study's."""
        return problem.column != self.config.split_column

    def _place(self, row: int, image: str) -> tuple[Any, str, str | None, str]:
        """View or slice number of a row (None: there is none), and what to say of it."""
        if self.order:
            view = self.views[row - 1]
            return view, self.config.view_column or "", view, "the row names no view"
        if self.config.slice_column:
            cell = self.numbers[row - 1]
            number = _number(cell)
            return number, self.config.slice_column, cell, "the slice number is missing or no number"
        return slice_number(image), "image", image, "the file name has no slice number; name a dataset.slice_column"

    def _record(self, study: Any, case: int, rows: list[int], images: tuple[str | None, ...] | None) -> dict[str, Any]:
        """The study as one row."""
        whole = [row for row in rows if row not in self.broken] or rows
        record: dict[str, Any] = {}
        different: dict[str, list[str]] = {}
        for name, cells in self.columns.items():
            values = list(dict.fromkeys(cells[row - 1] for row in whole if cells[row - 1] is not None))
            record[name] = values[0] if len(values) == 1 else None
            if len(values) > 1:
                different[name] = values
        record["text"] = " ".join(different["text"]) if "text" in different else record["text"]
        record["image"] = images
        is_named = not isinstance(study, tuple)
        if self.own_id or record["id"] is None:
            record["id"] = study if is_named else self.columns["id"][whole[0] - 1]
        if self.own_group:
            record["group"] = study if is_named else None
        if not is_named:
            column = self.config.study_column or ""
            self.problems.append(Problem(case, record["id"] or f"row-{case}", column, None, "the row names no study"))
        for name in _ONE_VALUE:
            if name in different:
                record[name] = different[name][0]
                message = f"the rows of a study have to agree, and these have {', '.join(different[name])}"
                self.problems.append(Problem(case, record["id"], name, None, message))
        return record


def read_regions(cases: CaseTable, raw: RawTable, config: DatasetConfig) -> None:
    """Read ``config.roi_columns`` into ``cases.regions``; a box that is none is a problem of its row."""
    cells = [[cell_text(cell) for cell in raw.columns[name]] for name in config.roi_columns]
    missing = {value.lower() for value in config.missing_values}
    cases.regions = {}
    named = ", ".join(config.roi_columns)
    for row in cases.frame.index:
        corners = [column[row - 1] for column in cells]
        if all(corner is None or corner.lower() in missing for corner in corners):
            continue
        box = [_number(corner) for corner in corners]
        x0, y0, x1, y1 = box
        if x0 is None or y0 is None or x1 is None or y1 is None:
            message = "four numbers are needed, or none"
        elif x1 <= x0 or y1 <= y0:
            message = "the region is empty: x1 has to be above x0, y1 above y0"
        else:
            cases.regions[row] = (x0, y0, x1, y1)
            continue
        value = ", ".join(str(corner) for corner in corners)
        id_ = cases.frame.at[row, "id"]
        cases.problems.append(Problem(row, id_ if id_ is not None else f"row-{row}", named, value, message))


def _number(cell: str | None) -> float | None:
    try:
        number = float(cell) if cell is not None else math.nan
    except ValueError:
        return None
    return number if math.isfinite(number) else None
