"""Options of reading and splitting a data set. Importing this module loads no heavy library."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from typing import Any

from mmfusion.data.memory import as_setting
from mmfusion.data.presets import PRESETS
from mmfusion.images.header_facts import check_facts
from mmfusion.images.slices import check_choice_of_slices
from mmfusion.names import check_choice
from mmfusion.task import DEFAULT

FORMATS = ("auto", "table", "shards", "report", "imagefolder", "folder")
#: Two options that exclude each other, and how the message names them.
_APART = (
    ("study_column", "view_columns", "study_column (views as rows) and view_columns (views as columns)"),
    ("view_column", "slice_column", "view_column (views) and slice_column (slices)"),
    ("roi_columns", "study_column", "roi_columns and cases of several images"),
    ("roi_columns", "view_columns", "roi_columns and cases of several images"),
    ("image_column", "view_columns", "image_column and view_columns"),
    ("views", "view_columns", "views (of view_column) and view_columns"),
    *(
        ("bag_column", other, f"bag_column (features in place of images) and {other}")
        for other in ("image_column", "view_columns", "study_column", "roi_columns")
    ),
)
#: An option, one that it needs, and what that one does.
_NEEDS = (
    ("slice_column", "study_column", "says what rows are one case"),
    ("view_column", "study_column", "says what rows are one case"),
    ("max_slices", "study_column", "says what rows are one case"),
    ("views", "view_column", "names the view of each row"),
)
#: Options that a trained model hands on to the data of others: how its inputs and labels are called, and no folder,
#: table, group or split of its author. The text template is the processor's.
_HANDED_ON = (
    *("image_column", "label_column", "label_columns", "task", "grades", "label_map", "text_column", "missing_values"),
    *("table_columns", "numeric_columns", "categorical_columns"),
    *("study_column", "slice_column", "max_slices", "view_column", "views", "view_columns", "roi_columns"),
    *("bag_column", "slice", "slices", "header_columns"),
)
#: Options that name a column with a meaning of its own for the data set, so that it is no input.
_ROLES = ("id", "label", "group", "split", "fold", "study", "slice", "view", "bag", "image", "text")


@dataclass
class DatasetConfig:
    """How to read a data set below its root folder.

    Attributes:
        preset: Public data set, whose layout fills the options that are not given: ``ham10000_kaggle``, ``isic2018``,
            ``isic2019``, ``ham10000`` (``metadata.csv`` and ``images``), ``spider_modic_multiview``,
            ``spider_modic_sequence`` or ``spider_pfirrmann_25d`` (as the examples of these names read SPIDER). It is
            None afterwards.
        format: ``table`` (rows of CSV, TSV, JSON lines, Parquet or a spreadsheet), ``shards`` (such a table in Parquet
            files ``train-00000-of-00002.parquet``, here or in ``data``), ``report`` (``image.csv`` +
            ``response.json``), ``imagefolder`` (``metadata.csv|jsonl`` with ``file_name``), ``folder`` (images alone),
            or ``auto``.
        table: Table file, relative to the root; None looks for the only table there.
        columns: Name that a column has here (for a trained model: in its training) -> name in the table, e.g.
            ``{age: Age, sex: gender}``. All other options but ``join_on`` use the names on the left.
        image_root: Folder of the images, relative to the root, or a list of such folders; None tries the root and
            ``images``. An image that is not there by its path is looked for by file name or id in the folders below. Of
            a table in memory, relative to the working directory; None takes paths that are absolute or relative to it.
        follow_links: Whether links are followed that lead out of the image root.
        check_images: Whether every image is decoded once before training. What was found sound is kept in the user's
            cache, and not decoded again while size and time of the file stay.
        image_column: Column with the image path or id; None takes ``image``, ``image_id`` or ``file_name``.
        label_column: Column with the class name; an imagefolder without it has its classes from the sub-folders.
        label_columns: Columns with one class each (one-hot), in place of ``label_column``: exactly one of them is 1.
            Of task ``multilabel`` any number of them is 1, and a blank cell is unknown; of ``regression`` they are
            numbers.
        task: What the labels are, as ``model.task``, which it follows in a run.
        grades: The labels of task ``ordinal`` in their order; empty takes that of their numbers.
        label_map: Value of the label column -> class name, to rename or join classes: ``{"1": "below 4", ..., "5":
            "4 or more"}``. Then every value must be named, but those that a trained model calls so. Empty takes the
            values.
        id_column: Column that identifies a row in reports and predictions; None takes the image value.
        text_column: Free text, used as it is; None takes ``text`` where there is such a column.
        text_template: Sentence made from metadata columns, before the free text: ``"{age}-year-old {sex}, lesion on
            the {localization}"``. A missing field is left out together with the words that belong to it.
        table_columns: Metadata columns that the model reads as numbers and categories: their names, or ``auto`` for all
            but those that identify a row, tell the label, or say nothing; None reads none. Whether a column is
            numeric or categorical is found from the training rows.
        numeric_columns: Columns that the model reads as numbers, whatever their cells look like.
        categorical_columns: Columns that the model reads as categories, likewise.
        group_column: Patient or lesion; rows of one group never lie on both sides of a split. None takes ``group``
            where there is such a column, and ``none`` no column.
        split_column: Column with ``train``, ``val`` and ``test``; without such a column (or with null), a grouped,
            stratified split is drawn.
        split_table: Table that ``mmfusion split`` wrote, or any with ``id`` and ``split`` (or ``fold_column``),
            relative to the working directory or the root; it takes the place of a split column.
        fold_column: Column with the fold of a row, in place of a split column; see ``folds``.
        folds: Split -> its folds, e.g. ``{test: [0], val: [1]}``; all other folds are ``train``.
        labels_table: Second table, relative to the root, whose columns are added to the rows that agree in ``join_on``;
            of a column in both tables the first table's is kept.
        join_on: Column that both tables have; in the second, no value stands twice.
        study_column: Rows that agree here are one case with several slices, or, with ``view_column``, several views.
            The study's value is the case's id (and group, unless ``group_column`` says otherwise); metadata in which
            its rows differ are missing.
        slice_column: Number that orders the slices of a study; None takes the last number in the file name.
        max_slices: Number of equally spaced slices that are kept of a longer study; None keeps all.
        slice: Slice that stands for a file of several (volume, series, multi-page TIFF): its number, from 0, or
            ``middle``. None refuses such a file where one picture is wanted.
        slices: Reads each file, or the folder of a DICOM series, as a study of slices in order: ``all``,
            ``start:stop:step`` (``20:80:2``), or a number of equally spaced ones. None does so for studies alone.
        header_columns: Metadata column -> fact of the DICOM header that fills it: ``{age: PatientAge, sex:
            PatientSex}``. What identifies a patient is refused.
        view_column: Column that names the view of each row of a study.
        views: The views, in the model's order (the first attends to the others); rows of other views are left out.
            Empty takes all that ``view_column`` names, in natural order.
        view_columns: Columns with an image path each, in the model's order, in place of ``image_column``. An empty cell
            is a missing view.
        roi_columns: Four columns ``[x0, y0, x1, y1]`` with a region of interest, in pixels of the upright image, x1 and
            y1 exclusive. A row without one takes the centre, half as wide and high as the image.
        bag_column: Column with the path, below the image root, of a bag of feature vectors (``.h5``, ``.npz`` or
            ``.safetensors`` with an array ``features``, vectors by width), in place of ``image_column``; for models
            with ``image_encoder: features``.
        val_fraction: Share of the groups for validation when the split is drawn.
        test_fraction: Share of the groups for test when the split is drawn.
        missing_values: Cell texts (any case) that count as missing in metadata columns.
        on_bad_row: ``fail`` stops with the list of bad rows before training; ``skip`` leaves them out and says so.
        on_bad_column: ``fail`` stops where a column that is named as an input had better not be one (it identifies
            rows, tells the label, says nothing); ``keep`` reads it all the same, with a warning.

    Raises:
        ValueError: Options that do not go together, or one out of range.
    """

    preset: str | None = None
    format: str = "auto"
    table: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    image_root: str | list[str] | None = None
    follow_links: bool = False
    check_images: bool = True
    image_column: str | None = None
    label_column: str = "label"
    label_columns: list[str] = field(default_factory=list)
    task: str = DEFAULT
    grades: list[str] = field(default_factory=list)
    label_map: dict[str, str] = field(default_factory=dict)
    id_column: str | None = None
    text_column: str | None = None
    text_template: str | None = None
    table_columns: list[str] | str | None = None
    numeric_columns: list[str] = field(default_factory=list)
    categorical_columns: list[str] = field(default_factory=list)
    group_column: str | None = None
    split_column: str | None = "split"
    split_table: str | None = None
    fold_column: str | None = None
    folds: dict[str, list[Any]] = field(default_factory=dict)
    labels_table: str | None = None
    join_on: str | None = None
    study_column: str | None = None
    slice_column: str | None = None
    max_slices: int | None = None
    slice: int | str | None = None
    slices: int | str | None = None
    header_columns: dict[str, str] = field(default_factory=dict)
    view_column: str | None = None
    views: list[str] = field(default_factory=list)
    view_columns: list[str] = field(default_factory=list)
    roi_columns: list[str] = field(default_factory=list)
    bag_column: str | None = None
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    missing_values: list[str] = field(default_factory=lambda: ["", "nan", "na", "n/a", "none", "null", "unknown"])
    on_bad_row: str = "fail"
    on_bad_column: str = "fail"

    def __post_init__(self) -> None:
        if self.preset is not None:
            check_choice("dataset.preset", self.preset, (None, *PRESETS))
            untouched = DatasetConfig()
            for option, value in PRESETS[self.preset].items():
                if getattr(self, option) == getattr(untouched, option):
                    setattr(self, option, copy(value))
            self.preset = None  # the options say it all now; a copy with one of them changed is not filled again
        if self.format not in FORMATS:
            raise ValueError(f"Unknown dataset.format {self.format!r}; the formats are {', '.join(FORMATS)}.")
        check_choice("dataset.on_bad_column", self.on_bad_column, ("fail", "keep"))
        for one, other, what in _APART:
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"dataset: {what} do not go together; leave one of them out.")
        for option, needed, why in _NEEDS:
            if getattr(self, option) not in (None, []) and getattr(self, needed) is None:
                raise ValueError(f"dataset.{option} needs dataset.{needed}, which {why}.")
        if self.max_slices is not None and (self.max_slices < 1 or self.view_column):
            wrong = "has to be at least 1, and goes with slices, not views"
            raise ValueError(f"dataset.max_slices={self.max_slices} {wrong}.")
        check_choice_of_slices(self.slice, self.slices)
        check_facts(self.header_columns)
        word = self.table_columns[0] if isinstance(self.table_columns, list) and len(self.table_columns) == 1 else None
        if word in ("auto", "none") or self.table_columns == []:
            self.table_columns = word
        if isinstance(self.table_columns, str) and self.table_columns != "auto":
            self.table_columns = [self.table_columns] if self.table_columns != "none" else None
        if both := sorted(set(self.numeric_columns) & set(self.categorical_columns)):
            named = "dataset.numeric_columns and dataset.categorical_columns"
            raise ValueError(f"{named} both name {', '.join(both)}; leave it in one of them.")
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError(f"dataset.columns names one column of the table twice: {self.columns}.")
        for option in ("views", "view_columns", "roi_columns", "label_columns", "grades"):
            names = getattr(self, option)
            if len(set(names)) < len(names):
                raise ValueError(f"dataset.{option} names one thing twice: {', '.join(names)}.")
        if len(self.roi_columns) not in (0, 4):
            raise ValueError(f"dataset.roi_columns are four, [x0, y0, x1, y1]; got {len(self.roi_columns)}.")

    @property
    def reads_columns(self) -> bool:
        """Whether columns are asked for as inputs."""
        return bool(self.table_columns or self.numeric_columns or self.categorical_columns)

    @property
    def named_columns(self) -> list[str]:
        """Columns that the options name as inputs."""
        chosen = self.table_columns if isinstance(self.table_columns, list) else []
        return list(dict.fromkeys([*chosen, *self.numeric_columns, *self.categorical_columns]))

    @property
    def roles(self) -> dict[str, str]:
        """Column -> the option that gives it a meaning of its own; such a column is no input of a model."""
        single = {getattr(self, f"{role}_column"): f"dataset.{role}_column" for role in reversed(_ROLES)}
        lists = ("view_columns", "roi_columns")
        several = {name: f"dataset.{option}" for option in lists for name in getattr(self, option)}
        joined = {self.join_on: "dataset.join_on"}
        return {name: option for name, option in (several | joined | single).items() if name is not None}

    @property
    def image_roots(self) -> list[str]:
        """The folders that ``image_root`` names."""
        return [self.image_root] if isinstance(self.image_root, str) else list(self.image_root or ())

    def for_columns(self) -> DatasetConfig:
        """The same data set, with columns asked for: those that it names, else all that may be inputs."""
        return self if self.reads_columns else replace(self, table_columns="auto")

    def without_split(self) -> DatasetConfig:
        """The same data set as if nothing said which rows are for training."""
        return replace(self, split_column=None, split_table=None, fold_column=None, folds={})


def handed_on(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings that a model was trained with, those that hold for the data of others."""
    return {name: settings[name] for name in _HANDED_ON if name in settings}


@dataclass
class SplitConfig:
    """Options of split.

    Attributes:
        data: Root folder of the data set, or its table.
        output: CSV file to write, for ``dataset.split_table``; one that is there is not written over.
        folds: Number of equal folds, for ``dataset.fold_column: fold`` and ``dataset.folds``; None draws train, val and
            test.
        seed: Seed of the draw. A training run with the same seed and rows would draw the same split.
        dataset: How to read the data; ``val_fraction`` and ``test_fraction`` are the shares of the groups.
    """

    data: str
    output: str
    folds: int | None = None
    seed: int = 0
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
