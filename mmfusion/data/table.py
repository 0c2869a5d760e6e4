"""A data set as a table of cases in one normal form, with everything wrong with it in one list."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

from mmfusion.data.config import DatasetConfig
from mmfusion.data.formats import (
    IMAGE_SUFFIXES,
    SPLIT_NAMES,
    RawTable,
    folder_labels,
    folder_splits,
    image_column,
    read_raw,
)
from mmfusion.text.template import cell_text, render, template_fields

if TYPE_CHECKING:
    import pandas as pd
    from PIL import Image

logger = logging.getLogger(__name__)

#: columns of the normal form; the metadata columns follow them.
NORMAL_COLUMNS = ("id", "image", "label", "text", "group", "split")
_EMPTIED = "none of its images can be used"
_LISTED = 20
_PROBED = 200
_CHUNK = 2048


@dataclass(frozen=True)
class Problem:
    """One thing wrong with one row.

    Attributes:
        row: data row in the file, 1-based, the header not counted.
        id: the row's id.
        column: column of the file, or what was read.
        value: what stands there.
        message: what is wrong.
        warning: True where the row itself is sound (a group on both sides of a split): it is told, and the row stays.
        part_of: index of the case that goes on without this one of its images; None where the case itself is bad.
    """

    row: int
    id: str
    column: str
    value: str | None
    message: str
    warning: bool = False
    part_of: int | None = None

    @property
    def case(self) -> int:
        """Index of the case in the table."""
        return self.row if self.part_of is None else self.part_of

    def __str__(self) -> str:
        value = "" if self.value is None else f" {self.value!r}"
        return f"row {self.row} ({self.id}), {self.column}{value}: {self.message}"


class BadRowsError(ValueError):
    """Rows that cannot be used: the first line says how many and what to do, the others list them."""


@dataclass
class CaseTable:
    """Rows of a data set in normal form.

    Attributes:
        frame: one case a row; the index is the data row in the file (1-based). Columns: ``id``; ``image``, a path
            relative to ``image_root`` (a tuple of paths where a case has several); ``label``; ``text``, the free text;
            ``group``; ``split`` (``train``, ``val``, ``test``); then the metadata. Every cell is a stripped text, or
            None where there is nothing.
        image_root: folder that no image lies outside of.
        problems: everything wrong with the rows.
        source: what messages call the table.
        known_labels: the class names that were given to :func:`read_cases`, if any.
        layout: what an ``image`` cell holds: ``image``, one path; ``slices``, a tuple of paths in their order;
            ``views``, a tuple with a path or None for every view. A case without any image has None in all three.
        regions: index -> region of interest (x0, y0, x1, y1) in pixels; None where the data have no such columns.
        image_rows: image -> its data row, where rows are the images of one case.
    """

    frame: pd.DataFrame
    image_root: Path
    problems: list[Problem] = field(default_factory=list)
    source: str = "the table"
    known_labels: tuple[str, ...] | None = None
    layout: str = "image"
    regions: dict[int, tuple[float, ...]] | None = None
    image_rows: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def labels(self) -> list[str]:
        """Class names: those the table was read with, else those of the training rows (of all rows before a split)."""
        if self.known_labels is not None:
            return list(self.known_labels)
        rows = self.frame["label"][self.frame["split"] == "train"] if self.splits else self.frame["label"]
        return sorted(set(rows.dropna()))

    @property
    def splits(self) -> dict[str, int]:
        """Rows of each split that the table has; empty before a split is drawn."""
        counts = self.frame["split"].value_counts()
        return {name: int(counts[name]) for name in ("train", "val", "test") if name in counts}

    @property
    def metadata(self) -> list[str]:
        """Names of the metadata columns."""
        return [name for name in self.frame.columns if name not in NORMAL_COLUMNS]

    def resolve(self, on_bad_row: str = "fail") -> CaseTable:
        """The table without problems.

        Args:
            on_bad_row: ``fail`` refuses a table with a bad row; ``skip`` leaves out the bad rows, and no other. A case
                with other images goes on without its bad ones.

        Raises:
            ValueError: bad rows and ``fail``, no row left, or an unknown ``on_bad_row``.
        """
        if on_bad_row not in ("fail", "skip"):
            raise ValueError(f"on_bad_row is 'fail' or 'skip', not {on_bad_row!r}.")
        warnings = [problem for problem in self.problems if problem.warning]
        bad = [problem for problem in self.problems if not problem.warning]
        for problem in warnings[:_LISTED]:
            logger.warning("%s: %s", self.source, problem)
        if len(warnings) > _LISTED:
            logger.warning("%s: ... and %d more.", self.source, len(warnings) - _LISTED)
        if not bad:
            return self
        if on_bad_row == "fail":
            raise BadRowsError(self._refusal(bad))
        parts = [problem for problem in bad if problem.part_of is not None]
        bad = [problem for problem in bad if problem.part_of is None]
        for problem in parts[:_LISTED]:
            logger.warning("%s: %s; its case goes on without it", self.source, problem)
        if len(parts) > _LISTED:
            logger.warning("%s: ... and %d more images left out.", self.source, len(parts) - _LISTED)
        kept = replace(self, frame=self.frame.drop(index=sorted({problem.row for problem in bad})), problems=warnings)
        # A class may have lost its last training row just now.
        untrained = list(kept._untrained_labels())
        kept.frame = kept.frame.drop(index=[problem.row for problem in untrained])
        if not len(kept):
            raise ValueError(
                f"{self.source}: no row is left of {len(self)}; the first problem: {[*bad, *untrained][0]}"
            )
        rows = sorted({problem.row for problem in [*bad, *untrained]})
        if rows:
            shown = ", ".join(map(str, rows[:_LISTED])) + (", ..." if len(rows) > _LISTED else "")
            logger.warning("%s: left out %d of %d rows: %s", self.source, len(rows), len(self), shown)
        return kept

    def _refusal(self, bad: Sequence[Problem]) -> str:
        rows = len({problem.row for problem in bad})
        lines = [f"  {problem}" for problem in sorted(bad, key=lambda problem: problem.row)[:_LISTED]]
        if len(bad) > _LISTED:
            lines.append(f"  ... and {len(bad) - _LISTED} more")
        count = f"{len(bad)} problem{'s' if len(bad) > 1 else ''} in {rows} of {len(self)} rows"
        fix = "correct them, or leave those rows out with --on-bad-row skip"
        return "\n".join([f"{self.source}: {count}; {fix}:", *lines])

    def _untrained_labels(self) -> Iterator[Problem]:
        """Rows outside the training split whose class no (good) training row has."""
        if self.known_labels is not None or not self.splits:
            return
        bad = {problem.row for problem in self.problems if not problem.warning and problem.part_of is None}
        good = self.frame[~self.frame.index.isin(bad)]
        trained = set(good["label"][good["split"] == "train"].dropna())
        for row, id_, label, split in good[["id", "label", "split"]].itertuples(name=None):
            if label is not None and split != "train" and label not in trained:
                message = f"unknown label: no training row has it, only {split}"
                yield Problem(row, id_, "label", label, message)

    def select(self, split: str) -> CaseTable:
        """The rows of one split.

        Raises:
            ValueError: the table has no such rows.
        """
        frame = self.frame[self.frame["split"] == split]
        if not len(frame):
            there = ", ".join(f"{name} ({count})" for name, count in self.splits.items()) or "none"
            raise ValueError(f"{self.source} has no rows of the split {split!r}; it has {there}.")
        return self._with_rows(frame)

    def _with_rows(self, frame: pd.DataFrame) -> CaseTable:
        rows = set(frame.index)
        # The classes stay those of the whole table: a test split may lack one.
        return replace(
            self,
            frame=frame,
            problems=[problem for problem in self.problems if problem.case in rows],
            known_labels=tuple(self.labels),
        )

    def split_or_draw(self, config: DatasetConfig, seed: int = 0) -> CaseTable:
        """The table itself where it has a split, else with a grouped, stratified split drawn.

        Raises:
            ValueError: too few groups to split.
        """
        if self.splits:
            return self
        from mmfusion.data.splits import group_split

        fractions = {"train": 1 - config.val_fraction - config.test_fraction}
        fractions |= {"val": config.val_fraction, "test": config.test_fraction}
        drawn = group_split(
            self.frame["label"].fillna("").tolist(), self.frame["group"].tolist(), fractions=fractions, seed=seed
        )
        return replace(self, frame=self.frame.assign(split=_objects(drawn.tolist())))

    def fingerprint(self) -> str:
        """SHA-256 over ids, image paths, labels, texts, groups, splits and metadata, in the order of the ids."""
        digest = hashlib.sha256(json.dumps(list(self.frame.columns)).encode())
        for row in self.frame.sort_values("id", kind="stable").itertuples(index=False, name=None):
            digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
        return digest.hexdigest()


def read_cases(
    root: str | Path,
    config: DatasetConfig | None = None,
    *,
    processor_labels: Sequence[str] | None = None,
    require_labels: bool = True,
) -> CaseTable:
    """Read a data set, whatever its format, and list what is wrong with its rows.

    Images are looked for but not opened: :func:`check_images` does that.

    Args:
        root: the data set's folder, or its table.
        config: how to read it.
        processor_labels: the classes that a trained model knows; any other label is a problem. None takes the classes
            of the training rows.
        require_labels: False where the data are only predicted: labels, groups and splits may be absent, and a label
            that the model does not know reads as none.

    Raises:
        FileNotFoundError: the data set, its table or its image root does not exist.
        ValueError: the format is unknown, a file is damaged as a whole, or columns are missing (all named at once).
    """
    from mmfusion.data.joins import join_labels, split_by_fold
    from mmfusion.data.split_table import apply_split_table
    from mmfusion.data.studies import check_structure, group_rows, read_regions

    config = config or DatasetConfig()
    check_structure(config)
    raw, folder = read_raw(Path(root), config, has_labels=require_labels)
    join_labels(raw, folder, config, required=require_labels)
    split_config = config
    if config.split_table is not None:
        config = config.without_split()
    split_by_fold(raw, config, required=require_labels)
    if raw.format == "folder" and require_labels:
        raise ValueError(f"{root} is read as a folder of images, which has no labels; add a table, or class folders.")
    names = _Columns.find(raw, config, require_labels)
    frame, image_root, problems = _normal_form(raw, folder, config, names, require_labels)
    known = tuple(processor_labels) if processor_labels is not None else None
    if not require_labels and known is not None:
        frame["label"] = frame["label"].where(frame["label"].isin(known), None)
    layout = "views" if config.view_columns else "image"
    cases = CaseTable(frame, image_root, problems, raw.source, known, layout)
    if config.study_column:
        cases = group_rows(cases, raw, config, own_group=names.group is None, own_id=names.id is None)
    if config.roi_columns:
        read_regions(cases, raw, config)
    if split_config.split_table is not None and require_labels:
        apply_split_table(cases, folder, split_config)
    problems = cases.problems
    problems += _emptied(cases)
    problems += _row_problems(cases, split_config, names, require_labels)
    if require_labels:
        problems += cases._untrained_labels()
    problems.sort(key=lambda problem: problem.row)
    return cases


@dataclass(frozen=True)
class _Columns:
    """Which column of the file is which; None where there is none."""

    image: str
    label: str | None
    id: str | None
    text: str | None
    group: str | None
    split: str | None

    @classmethod
    def find(cls, raw: RawTable, config: DatasetConfig, require_labels: bool) -> _Columns:
        missing: list[str] = []

        def need(name: str | None, default: str, option: str, required: bool = True) -> str | None:
            """A column named by the user must be there; a default one may be."""
            if name is None:
                return default if default in raw.columns else None
            if name not in raw.columns and required:
                missing.append(f"{name!r} (dataset.{option})")
            return name if name in raw.columns else None

        image = config.view_columns[0] if config.view_columns else image_column(raw, config)
        if image is None and raw.format == "report":
            image = next(iter(raw.columns))
        if image is None:
            wanted = repr(config.image_column) if config.image_column else "'image', 'image_id' or 'file_name'"
            missing.append(f"{wanted} (dataset.image_column)")
        by_folder = raw.format == "imagefolder" and config.label_column not in raw.columns
        if by_folder and image is not None and any(folder_labels(_clean(raw.columns[image]))):
            label = None
        else:
            label = need(config.label_column, "", "label_column", require_labels)
        # folds make a split column also where the table's own is not to be read
        split = (config.split_column or "split") if config.fold_column else config.split_column
        columns = cls(
            image=image or "",
            label=label,
            id=need(config.id_column, "", "id_column"),
            text=need(config.text_column, "text", "text_column"),
            group=need(config.group_column, "group", "group_column", require_labels),
            split=need(split, "", "split_column", split != DatasetConfig.split_column and require_labels),
        )
        for option in ("study_column", "slice_column", "view_column"):
            need(getattr(config, option), "", option)
        for option in ("view_columns", "roi_columns"):
            for name in getattr(config, option):
                need(name, "", option)
        fields = template_fields(config.text_template) if config.text_template else ()
        missing += [f"{name!r} (dataset.text_template)" for name in fields if name not in raw.columns]
        if missing and len(raw.columns) == 1 and {";", "\t"}.intersection(*raw.columns):
            raise ValueError(
                f"{raw.source} is not separated by commas: {next(iter(raw.columns))!r}; save it with commas."
            )
        if missing:
            raise ValueError(
                f"{raw.source} has no column {', '.join(missing)}; it has {', '.join(raw.columns)}. "
                "Name the right column in the option given, or add the column."
            )
        # what the normal form calls label or split is no metadata, whatever the table's own columns are called
        normal = {name for name in NORMAL_COLUMNS if getattr(columns, name) != name} | {"label", "split"}
        forbidden = (
            {columns.label, columns.split, columns.image, columns.text, *config.view_columns} | normal
        ).intersection(fields)
        if forbidden:
            raise ValueError(
                f"dataset.text_template names {', '.join(map(repr, sorted(filter(None, forbidden))))}; "
                "it may name metadata columns, not the label, split, image or text column, nor id or group."
            )
        return columns


def _normal_form(
    raw: RawTable, folder: Path, config: DatasetConfig, names: _Columns, require_labels: bool
) -> tuple[pd.DataFrame, Path, list[Problem]]:
    import pandas as pd

    missing = frozenset(value.lower() for value in config.missing_values)
    image_cells = {
        name: _clean(raw.columns[name], whole_numbers=False) for name in config.view_columns or [names.image]
    }
    values = [
        next((cell for cell in cells if cell is not None), None) for cells in zip(*image_cells.values(), strict=True)
    ]
    nothing: list[str | None] = [None] * len(raw)

    def column(name: str | None, default: list[str | None], missing: frozenset[str] | None = None) -> list[str | None]:
        return _clean(raw.columns[name], missing) if name else default

    by_folder = raw.format == "imagefolder"
    ids = _clean(raw.columns[names.id], whole_numbers=False) if names.id else values
    ids = [id_ if id_ is not None or names.id else f"row-{row}" for row, id_ in enumerate(ids, start=1)]
    normal = {
        "id": ids,
        "image": nothing,
        "label": column(names.label, folder_labels(values) if by_folder else nothing),
        "text": _clean(raw.columns[names.text], whole_numbers=False) if names.text else nothing,
        "group": column(names.group, nothing, missing),
        "split": column(names.split, folder_splits(values) if by_folder and config.split_column else nothing),
    }
    used = {*NORMAL_COLUMNS, *image_cells, names.label, names.text}
    metadata = {name: _clean(cells, missing) for name, cells in raw.columns.items() if name not in used}

    problems: list[Problem] = []

    def report(row: int, column: str, value: str | None, message: str, part_of: int | None = None) -> None:
        problems.append(Problem(row, ids[row - 1] or f"row-{row}", column, value, message, part_of=part_of))

    for row, why in raw.broken.items():
        report(row, "line", None, why)
    image_root = _image_root(folder, config, values)
    images = _ImageFolder(image_root)
    found: dict[str, list[str | None]] = {name: [] for name in image_cells}
    for name, cells in image_cells.items():
        for row, value in enumerate(cells, start=1):
            try:
                found[name].append(images.find(value) if value is not None else None)
            except ValueError as error:
                found[name].append(None if config.view_columns else value)
                if row not in raw.broken:
                    report(row, name, value, str(error), part_of=row if config.view_columns else None)
    normal["image"] = found[names.image]
    if config.view_columns:
        normal["image"] = [views if any(views) else None for views in zip(*found.values(), strict=True)]
    if config.label_map:
        classes = {str(value): name for value, name in config.label_map.items()}
        for row, value in enumerate(normal["label"], start=1):
            if require_labels and value is not None and value not in classes and row not in raw.broken:
                known = ", ".join(classes)
                report(row, names.label or "label", value, f"unknown label; dataset.label_map names {known}")
        normal["label"] = [classes.get(value) if value is not None else None for value in normal["label"]]
    for row, value in enumerate(normal["split"], start=1):
        if value is not None and value.lower() not in SPLIT_NAMES and row not in raw.broken:
            report(row, names.split or "", value, "unknown split; the splits are train, val, test")
    normal["split"] = [SPLIT_NAMES.get(value.lower()) if value is not None else None for value in normal["split"]]
    index = pd.RangeIndex(1, len(raw) + 1, name="row")
    columns = {name: _objects(cells) for name, cells in (normal | metadata).items()}
    frame = pd.DataFrame(columns, index=index, dtype=object)
    return frame, image_root, problems


def _row_problems(cases: CaseTable, config: DatasetConfig, names: _Columns, require_labels: bool) -> list[Problem]:
    """Problems that show in the normal form. A row whose line is broken has that problem only."""
    frame = cases.frame
    broken = {problem.row for problem in cases.problems if problem.column == "line" or problem.message == _EMPTIED}
    misnamed = {problem.row for problem in cases.problems if problem.column == names.split}
    mislabelled = {problem.row for problem in cases.problems if problem.column == (names.label or "label")}
    split_missing = "missing split; the splits are train, val, test"
    if config.split_table is not None:
        split_missing = f"{config.split_table} has no such id"
    problems: list[Problem] = []

    def report(row: int, column: str | None, value: str | None, message: str, warning: bool = False) -> None:
        id_ = frame.at[row, "id"]
        problems.append(Problem(row, id_ if id_ is not None else f"row-{row}", column or "", value, message, warning))

    first: dict[str, int] = {}
    for row, id_ in frame["id"].items():
        if row in broken:
            continue
        if id_ is None:
            report(row, names.id, None, "missing id")
        elif first.setdefault(id_, row) != row:
            report(row, names.id or names.image, id_, f"duplicate id, first in row {first[id_]}")

    template = config.text_template or ""
    for row in frame.index[frame["image"].isna() & frame["text"].isna()]:
        if row not in broken and not render(template, frame.loc[row].to_dict(), config.missing_values):
            report(row, names.text or "text", None, "neither an image nor a text")

    if require_labels:
        for row, label in frame["label"].items():
            if row in broken | mislabelled:
                continue
            if label is None:
                report(row, names.label or "label", None, "missing label")
            elif cases.known_labels is not None and label not in cases.known_labels:
                known = ", ".join(cases.known_labels)
                report(row, names.label or "label", label, f"unknown label; the model knows {known}")
    if cases.splits and require_labels:
        # rows that were bad when a split table was drawn are not in it: they have a problem already
        already = {problem.row for problem in problems} if config.split_table is not None else set()
        for row in frame.index[frame["split"].isna()]:
            if row not in broken | misnamed | already:
                report(row, names.split or "split", None, split_missing)

    grouped = frame[frame["group"].notna() & frame["split"].notna() & ~frame.index.isin(broken)]
    home = grouped.groupby("group")["split"].transform("first")
    strays = grouped.assign(home=home)[grouped["split"] != home].drop_duplicates("group")
    for row, group, split, home_split in strays[["group", "split", "home"]].itertuples(name=None):
        message = f"the group lies in {home_split} and in {split}: a leak between splits"
        report(row, names.group, group, message, warning=True)
    return problems


def _emptied(cases: CaseTable) -> list[Problem]:
    """Cases that had images, of which none is left."""
    parted = {problem.part_of for problem in cases.problems} - {None}
    known = {problem.row for problem in cases.problems if problem.part_of is None and not problem.warning}
    rows = cases.frame[cases.frame["image"].isna() & cases.frame.index.isin(parted - known)]
    return [Problem(row, id_, "image", None, _EMPTIED) for row, id_ in rows["id"].items()]


class _ImageFolder:
    """Finds images below one folder and refuses what lies outside it. Each folder is listed once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._real_root = os.path.realpath(root)
        self._listing = lru_cache(maxsize=None)(self._list)

    def find(self, value: str) -> str:
        """The path of an image, relative to the root, for a path or an id without its extension.

        Raises:
            ValueError: there is no such file, or it lies outside the root.
        """
        path = PurePosixPath(value)
        if path.is_absolute() or PureWindowsPath(value).is_absolute() or ".." in path.parts:
            raise ValueError(f"the path must lie below the image root {self.root}, without '..'")
        folder = path.parent.as_posix()
        links, by_stem = self._listing(folder)
        name = path.name if path.name in links else by_stem.get(path.name)
        if name is None:
            raise ValueError(f"the image file does not exist below {self.root}")
        if links[name] and not self._is_inside(self.root / folder / name):
            raise ValueError(f"the file is a link that leads out of the image root {self.root}")
        return name if folder == "." else f"{folder}/{name}"

    def _is_inside(self, path: Path) -> bool:
        real = os.path.realpath(path)
        return real == self._real_root or real.startswith(self._real_root.rstrip(os.sep) + os.sep)

    def _list(self, folder: str) -> tuple[dict[str, bool], dict[str, str]]:
        """Files of a folder -> whether they are links, and image ids -> files."""
        path = self.root / folder
        if not path.is_dir():
            return {}, {}
        if not self._is_inside(path):
            raise ValueError(f"the folder {folder!r} is a link that leads out of the image root {self.root}")
        with os.scandir(path) as entries:
            links = {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
        by_stem: dict[str, str] = {}
        for suffix in IMAGE_SUFFIXES:
            for name in sorted(links):
                if name.lower().endswith(suffix):
                    by_stem.setdefault(name[: -len(suffix)], name)
        return links, by_stem


def _image_root(folder: Path, config: DatasetConfig, values: Sequence[str | None]) -> Path:
    """The folder of the images: the one named, or of the root and ``images`` the one where the first images are."""
    if config.image_root is not None:
        root = folder / config.image_root
        if not root.is_dir():
            raise FileNotFoundError(f"The image root {root} (dataset.image_root) does not exist.")
        return root
    images = folder / "images"
    if not images.is_dir():
        return folder
    probes = [value for value in values if value is not None][:_PROBED]
    if _count_found(images, probes) <= _count_found(folder, probes):
        return folder
    if not os.path.realpath(images).startswith(os.path.realpath(folder).rstrip(os.sep) + os.sep):
        raise ValueError(f"{images} is a link out of {folder}; if that is meant, set dataset.image_root: images.")
    return images


def _count_found(root: Path, values: Iterable[str]) -> int:
    images = _ImageFolder(root)

    def is_there(value: str) -> bool:
        try:
            images.find(value)
        except ValueError:
            return False
        return True

    return sum(map(is_there, values))


def _clean(
    cells: Sequence[Any], missing: frozenset[str] | None = None, *, whole_numbers: bool = True
) -> list[str | None]:
    """Cells as texts; equal cells share one text, since metadata repeat."""
    values = missing if missing is not None else ("", "nan")

    def clean(cell: Any) -> str | None:
        # A text such as "3.0" is a number in metadata, and a name in paths and ids.
        if isinstance(cell, str) and not whole_numbers:
            text = cell.strip()
            return None if text.lower() in values else text
        return cell_text(cell, values)

    cached: Callable[[Any], str | None] = lru_cache(maxsize=4096, typed=True)(clean)
    return [cached(cell) if isinstance(cell, (str, int, float)) else clean(cell) for cell in cells]


def _objects(cells: Sequence[Any]) -> Any:
    """An object array, in which None stays None and a tuple one cell."""
    import numpy as np

    array = np.empty(len(cells), dtype=object)
    for i, cell in enumerate(cells):
        array[i] = cell
    return array


def check_images(
    cases: CaseTable,
    workers: int | None = None,
    *,
    progress: bool = True,
    look: Callable[[str, Image.Image], None] | None = None,
) -> CaseTable:
    """Decode every image once and add those that fail to ``cases.problems``; a case with others goes on without them.

    An image is decoded whole, since a truncated file opens as well as any other. A region of interest has to lie within
    its image.

    Args:
        cases: the table; rows that have a problem already are not looked at again.
        workers: threads; None takes one a core, at most 8.
        progress: show a progress bar on a terminal.
        look: called from several threads with each image's path in the table and the decoded image, for whoever wants
            to know more of it; what it raises counts against the image.

    Returns:
        The same table.
    """
    from tqdm import tqdm

    bad = {problem.row for problem in cases.problems if not problem.warning and problem.part_of is None}
    todo = [
        (row, id_, image)
        for row, id_, images in cases.frame[["id", "image"]].itertuples(name=None)
        if row not in bad
        for image in ((images,) if cases.layout == "image" else images or ())
        if image is not None
    ]
    regions = cases.regions or {}
    undecoded: dict[int, set[str]] = {}
    bar = tqdm(total=len(todo), desc="Checking images", unit="image", disable=None if progress else True)
    with bar, ThreadPoolExecutor(workers or min(8, os.cpu_count() or 1)) as pool:
        for start in range(0, len(todo), _CHUNK):
            chunk = todo[start : start + _CHUNK]
            reasons = pool.map(
                lambda row, image: _image_problem(cases.image_root, image, regions.get(row), look),
                [row for row, _, _ in chunk],
                [image for _, _, image in chunk],
            )
            for (row, id_, image), reason in zip(chunk, reasons, strict=True):
                bar.update()
                if reason is None:
                    continue
                if cases.layout == "image":
                    cases.problems.append(Problem(row, id_, "image", image, reason))
                else:
                    place = cases.image_rows.get(image, row)
                    cases.problems.append(Problem(place, id_, "image", image, reason, part_of=row))
                    undecoded.setdefault(row, set()).add(image)
    if undecoded:
        cases.frame = cases.frame.assign(image=_objects(list(_without(cases, undecoded))))
        cases.problems += _emptied(cases)
    cases.problems.sort(key=lambda problem: problem.row)
    return cases


def _without(cases: CaseTable, left_out: dict[int, set[str]]) -> Iterator[tuple[str | None, ...] | None]:
    """The image cells of a table of studies, without some of their images."""
    for row, images in cases.frame["image"].items():
        gone = left_out.get(row, ())
        if gone and cases.layout == "views":
            images = tuple(None if image in gone else image for image in images)
        elif gone:
            images = tuple(image for image in images if image not in gone)
        yield images if images is not None and any(images) else None


def _image_problem(
    root: Path, name: str, region: tuple[float, ...] | None, look: Callable[[str, Image.Image], None] | None
) -> str | None:
    from PIL import Image, ImageOps

    try:
        with Image.open(root / name) as image:
            image.load()
            width, height = ImageOps.exif_transpose(image).size if region else image.size
            if look is not None:
                look(name, image)
    except Exception as error:  # a damaged file may raise anything: struct.error, SyntaxError, ValueError, OSError
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        return f"the image cannot be decoded: {reason}"
    if region and not (region[0] >= 0 and region[2] <= width and region[1] >= 0 and region[3] <= height):
        return f"the region of interest {region} does not lie in the image, which is {width} x {height} pixels"
    return None
