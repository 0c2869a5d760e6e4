"""Reading step: cells to cases in normal form, with image paths, class names and split names resolved."""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from mmfusion.data.bags import BAG_SUFFIXES
from mmfusion.data.cases import NORMAL_COLUMNS, CaseTable, object_array
from mmfusion.data.class_folders import SPLIT_NAMES, folder_labels, folder_splits
from mmfusion.data.config import DatasetConfig
from mmfusion.data.formats import MEMORY
from mmfusion.data.image_folder import (
    ImageFolder,
    ImagePathError,
    find_image_root,
    find_shared_root,
    open_image_folder,
)
from mmfusion.data.problems import Cell, Problem, ProblemKind
from mmfusion.data.reading import CaseReading, Reading
from mmfusion.images.kinds import IMAGE_SUFFIXES
from mmfusion.task import task_named
from mmfusion.text.template import cell_text

Cells = list[Cell]


def to_normal_form(reading: Reading) -> CaseReading:
    """Make one case per row, as described in :class:`CaseTable`. Images are located, but not opened.

    Raises:
        FileNotFoundError: ``dataset.image_root`` does not exist.
        ValueError: The folder ``images`` is a link out of the data set.
    """
    raw, config, columns = reading.raw, reading.config, reading.columns
    missing = frozenset(value.lower() for value in config.missing_values)
    names = config.view_columns or ([columns.image] if columns.image else [])
    first = raw.skipped + 1
    images = {name: _clean(raw.columns[name], whole_numbers=False) for name in names}
    nothing: Cells = [None] * len(raw)
    shown = zip(*images.values(), strict=True) if images else ((cell,) for cell in nothing)
    values = [next((cell for cell in cells if cell is not None), None) for cells in shown]
    ids: Cells = [value or f"row-{row}" for row, value in enumerate(values, start=first)]
    labels = splits = nothing
    if raw.format == "imagefolder":
        labels = folder_labels(values)
        splits = folder_splits(values) if config.split_table is None and config.split_column else nothing

    def column(name: str | None, default: Cells, **how: Any) -> Cells:
        return _clean(raw.columns[name], **how) if name else default

    normal: dict[str, list[Any]] = {
        "id": column(columns.id, ids, whole_numbers=False),
        "image": nothing,
        "label": column(columns.label, labels),
        "text": column(columns.text, nothing, whole_numbers=False),
        "group": column(columns.group, nothing, missing=missing),
        "split": column(columns.split, splits),
    }
    used = {*NORMAL_COLUMNS, *images, columns.label, columns.text}
    metadata = {name: _clean(cells, missing) for name, cells in raw.columns.items() if name not in used}

    problems = _Problems(reading, normal["id"])
    if raw.image_root is not None:
        image_root = raw.image_root
    elif raw.format == MEMORY and config.image_root is None:
        images = {name: [cell and os.path.abspath(cell) for cell in cells] for name, cells in images.items()}
        image_root = find_shared_root([cell for cells in images.values() for cell in cells if cell])
    else:
        image_root = find_image_root(reading.folder, config, values)
    if images:
        suffixes = BAG_SUFFIXES if config.bag_column else IMAGE_SUFFIXES
        folder = open_image_folder(reading.folder, image_root, config, suffixes)
        normal["image"] = _find_images(images, folder, problems, several=bool(config.view_columns))
        if config.slices is not None and not config.study_column:
            normal["image"] = [(image,) if image is not None else None for image in normal["image"]]
    normal["label"] = _name_labels(task_named(config.task).normal(normal["label"]), reading, problems)
    normal["split"] = _name_splits(normal["split"], reading, problems)
    index = pd.RangeIndex(first, first + len(raw), name="row")
    cells = {name: object_array(column) for name, column in (normal | metadata).items()}
    frame, layout = pd.DataFrame(cells, index=index, dtype=object), _layout(config)
    known = reading.known_labels or tuple(task_named(config.task).fixed(config)) or reading.known_labels
    cases = CaseTable(frame, image_root, problems.found, raw.source, known, layout, notes=raw.notes, task=config.task)
    cases.slice, cases.slices = config.slice, config.slices
    return CaseReading(**vars(reading), cases=cases)


def _layout(config: DatasetConfig) -> str:
    if config.slices is not None and not config.study_column:
        return "slices"
    return "bags" if config.bag_column else "views" if config.view_columns else "image"


class _Problems:
    """Collects problems of rows, numbered from ``first``; a row with a broken line has only that problem."""

    def __init__(self, reading: Reading, ids: Cells) -> None:
        self._ids, self._broken, kind = ids, reading.raw.broken, ProblemKind.BROKEN_LINE
        self.first = reading.raw.skipped + 1
        found = ((row, ids[row - self.first], why) for row, why in self._broken.items())
        self.found = [Problem.of_row(kind, row, id_, "line", None, why) for row, id_, why in found]

    def add(
        self, kind: ProblemKind, row: int, column: Cell, value: str, message: str, part_of: int | None = None
    ) -> None:
        if row not in self._broken:
            self.found.append(Problem.of_row(kind, row, self._ids[row - self.first], column, value, message, part_of))


def _find_images(images: dict[str, Cells], folder: ImageFolder, problems: _Problems, *, several: bool) -> list[Any]:
    """Path of each row's image, or a tuple with one per view; None if a row has none."""
    found: dict[str, Cells] = {name: [] for name in images}
    for name, cells in images.items():
        for row, value in enumerate(cells, start=problems.first):
            try:
                found[name].append(folder.find(value) if value is not None else None)
            except ImagePathError as error:
                # a single image stays in the table under its name; a view is dropped and its case kept
                found[name].append(None if several else value)
                problems.add(error.kind, row, name, str(value), str(error), part_of=row if several else None)
    if not several:
        return next(iter(found.values()))
    return [views if any(views) else None for views in zip(*found.values(), strict=True)]


def _name_labels(cells: Cells, reading: Reading, problems: _Problems) -> Cells:
    """Class names from ``dataset.label_map``; without ``require_labels``, classes unknown to the model become None."""
    config = reading.config
    if config.label_map:
        known = reading.known_labels or ()
        own = {name: name for name in known}  # names of the model's classes need no entry
        classes = own | {str(value): name for value, name in config.label_map.items()}
        for row, value in enumerate(cells if reading.require_labels else (), start=problems.first):
            name = classes.get(value) if value is not None else None
            if value is None or (name is not None and (name in own or not own)):
                continue
            message = f"unknown label; dataset.label_map names {', '.join(classes)}"
            if name is not None:
                message = f"unknown label; dataset.label_map makes it {name!r}, but the model knows {', '.join(known)}"
            problems.add(ProblemKind.UNKNOWN_LABEL, row, reading.columns.label or "label", value, message)
        cells = [classes.get(value) if value is not None else None for value in cells]
    if not reading.require_labels and reading.known_labels is not None:
        fault, known_labels = task_named(config.task).fault, reading.known_labels
        cells = [value if value is not None and fault(value, known_labels) is None else None for value in cells]
    return cells


def _name_splits(cells: Cells, reading: Reading, problems: _Problems) -> Cells:
    message = "unknown split; expected train, val or test"
    for row, value in enumerate(cells, start=problems.first):
        if value is not None and value.lower() not in SPLIT_NAMES:
            problems.add(ProblemKind.UNKNOWN_SPLIT, row, reading.columns.split, value, message)
    return [SPLIT_NAMES.get(value.lower()) if value is not None else None for value in cells]


def _clean(cells: Sequence[Any], missing: frozenset[str] | None = None, *, whole_numbers: bool = True) -> Cells:
    """Cells as text; equal cells share one string, since metadata repeat."""
    values = missing if missing is not None else ("", "nan")

    def clean(cell: Any) -> Cell:
        # Text such as "3.0" is a number in metadata, but a name in paths and ids.
        if isinstance(cell, str) and not whole_numbers:
            text = cell.strip()
            return None if text.lower() in values else text
        return cell_text(cell, values)

    cached: Callable[[Any], Cell] = lru_cache(maxsize=4096, typed=True)(clean)
    return [cached(cell) if isinstance(cell, (str, int, float)) else clean(cell) for cell in cells]
