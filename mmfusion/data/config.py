"""Options for reading and splitting data sets. Imports no heavy library."""

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
#: Pairs of mutually exclusive options, and how the message names them.
_APART = (
    ("study_column", "view_columns", "study_column (views as rows) and view_columns (views as columns)"),
    ("view_column", "slice_column", "view_column (views) and slice_column (slices)"),
    ("roi_columns", "study_column", "roi_columns and cases of several images"),
    ("roi_columns", "view_columns", "roi_columns and cases of several images"),
    ("image_column", "view_columns", "image_column and view_columns"),
    ("views", "view_columns", "views (of view_column) and view_columns"),
    *(
        ("bag_column", other, f"bag_column (features instead of images) and {other}")
        for other in ("image_column", "view_columns", "study_column", "roi_columns")
    ),
)
#: An option, one that it requires, and what the required one does.
_NEEDS = (
    ("slice_column", "study_column", "defines which rows form one case"),
    ("view_column", "study_column", "defines which rows form one case"),
    ("max_slices", "study_column", "defines which rows form one case"),
    ("views", "view_column", "names the view of each row"),
)
#: Options that a trained model passes on to new data: names of inputs and labels, but no folder, table, group or split
#: of the training data. The text template belongs to the processor.
_HANDED_ON = (
    *("image_column", "label_column", "label_columns", "task", "grades", "label_map", "text_column", "missing_values"),
    *("table_columns", "numeric_columns", "categorical_columns"),
    *("study_column", "slice_column", "max_slices", "view_column", "views", "view_columns", "roi_columns"),
    *("bag_column", "slice", "slices", "header_columns"),
)
#: Options that give a column a role of its own, so that it is not a model input.
_ROLES = ("id", "label", "group", "split", "fold", "study", "slice", "view", "bag", "image", "text")


@dataclass
class DatasetConfig:
    """How to read a data set from its root folder.

    Attributes:
        preset: Public data set whose layout fills the options that are not given: ``ham10000_kaggle``, ``isic2018``,
            ``isic2019``, ``ham10000`` (``metadata.csv`` and ``images``), ``spider_modic_multiview``,
            ``spider_modic_sequence`` or ``spider_pfirrmann_25d`` (SPIDER as in the examples of these names). None
            after the options are filled in.
        format: ``table`` (rows of CSV, TSV, JSON lines, Parquet or a spreadsheet), ``shards`` (such a table in Parquet
            files ``train-00000-of-00002.parquet``, here or in ``data``), ``report`` (``image.csv`` +
            ``response.json``), ``imagefolder`` (``metadata.csv|jsonl`` with ``file_name``), ``folder`` (images only),
            or ``auto``.
        table: Table file, relative to the root; None looks for a single table there.
        columns: Rename columns: name used here (for a trained model: in training) -> name in the table, e.g.
            ``{age: Age, sex: gender}``. All other options except ``join_on`` use the names on the left.
        image_root: Folder of the images, relative to the root, or a list of folders; None tries the root and
            ``images``. An image not found by its path is searched by file name or id in all subfolders. For a table in
            memory it is relative to the working directory, and None accepts absolute and relative paths.
        follow_links: Follow symbolic links that leave the image root.
        check_images: Decode every image once before training or evaluation. Valid images are remembered in the user's
            cache and not decoded again while size and time of the file stay the same.
        image_column: Column with the image path or id; None looks for ``image``, ``image_id`` or ``file_name``.
        label_column: Column with the class name; an imagefolder without it takes the classes from its subfolders.
        label_columns: One-hot label columns, one per class, instead of ``label_column``: exactly one of them is 1.
            For ``multilabel`` any number of them is 1 and a blank cell is unknown; for ``regression`` they are
            numbers.
        task: Kind of labels; in a run it follows ``model.task``.
        grades: Ordered labels of the task ``ordinal``; empty orders them by number.
        label_map: Value of the label column -> class name, to rename or merge classes: ``{"1": "below 4", ..., "5":
            "4 or more"}``. It must name every value except those equal to a class of the trained model. Empty keeps
            the values.
        id_column: Column that identifies a row in reports and predictions; None uses the image value.
        text_column: Free text, used unchanged; None uses ``text`` if there is such a column.
        text_template: Sentence built from metadata columns, placed before the free text: ``"{age}-year-old {sex},
            lesion on the {localization}"``. A missing field is dropped together with the words around it.
        table_columns: Metadata columns to use as numeric and categorical inputs: their names, or ``auto`` for all
            except those that identify a row, reveal the label, or are constant; None uses none. The training rows
            decide whether a column is numeric or categorical.
        numeric_columns: Columns to use as numeric inputs, whatever their values look like.
        categorical_columns: Columns to use as categorical inputs, whatever their values look like.
        group_column: Column with the patient or lesion; rows of one group always share a split. None uses ``group``
            if there is such a column, and ``none`` disables grouping.
        split_column: Column with ``train``, ``val`` and ``test``; without such a column (or with null), a grouped,
            stratified split is drawn.
        split_table: Table with ``id`` and ``split`` (or ``fold_column``), e.g. from ``mmfusion split``, relative to
            the working directory or the root; it replaces the split column.
        fold_column: Column with the fold of each row, instead of a split column; see ``folds``.
        folds: Split -> its folds, e.g. ``{test: [0], val: [1]}``; all other folds are ``train``.
        labels_table: Second table, relative to the root, whose columns are joined to the rows on ``join_on``; if a
            column is in both tables, that of the first one is kept.
        join_on: Column in both tables to join on; its values must be unique in the second one.
        study_column: Column with the study; the rows of a study form one case with several slices or, with
            ``view_column``, several views. The value is the case's id (and its group, unless ``group_column`` is set);
            metadata that differ between the rows are set to missing.
        slice_column: Column with the number that orders the slices of a study; None uses the last number in the file
            name.
        max_slices: Maximum number of slices per study, equally spaced; None keeps all.
        slice: Slice to use of a file with several (volume, series, multi-page TIFF) where one image is needed: its
            number, from 0, or ``middle``. None rejects such files.
        slices: Read each file, or folder of a DICOM series, as a study of ordered slices: ``all``,
            ``start:stop:step`` (``20:80:2``), or a number of equally spaced ones. None does so for studies only.
        header_columns: Metadata column -> DICOM header field that fills it: ``{age: PatientAge, sex: PatientSex}``.
            Fields that identify a patient are rejected.
        view_column: Column with the name of the view in each row of a study.
        views: Views in the model's order (the first attends to the others); rows of other views are dropped. Empty
            uses all values of ``view_column`` in natural order.
        view_columns: Columns with one image path each, in the model's order, instead of ``image_column``. An empty
            cell is a missing view.
        roi_columns: Four columns ``[x0, y0, x1, y1]`` with a region of interest in pixels of the upright image, x1 and
            y1 exclusive. A row without one uses the central half of the image in width and height.
        bag_column: Column with the path, relative to the image root, of a bag of feature vectors (``.h5``, ``.npz`` or
            ``.safetensors`` with an array ``features``, vectors by width), instead of ``image_column``; for models
            with ``image_encoder: features``.
        val_fraction: Fraction of the groups used for validation when a split is drawn.
        test_fraction: Fraction of the groups used for testing when a split is drawn.
        missing_values: Cell values (in any case) that count as missing in metadata columns.
        on_bad_row: ``fail`` stops before training with a list of the bad rows; ``skip`` drops them with a warning.
        on_bad_column: ``fail`` stops if a column named as an input is unsuitable (it identifies rows, reveals the
            label, or is constant); ``keep`` uses it with a warning.

    Raises:
        ValueError: Options exclude each other, or one is out of range.
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
            self.preset = None  # the options are complete now, and a changed copy must not be filled again
        if self.format not in FORMATS:
            raise ValueError(f"Unknown dataset.format {self.format!r}; known: {', '.join(FORMATS)}.")
        check_choice("dataset.on_bad_column", self.on_bad_column, ("fail", "keep"))
        for one, other, what in _APART:
            if getattr(self, one) and getattr(self, other):
                raise ValueError(f"dataset: {what} cannot be combined; remove one of them.")
        for option, needed, why in _NEEDS:
            if getattr(self, option) not in (None, []) and getattr(self, needed) is None:
                raise ValueError(f"dataset.{option} requires dataset.{needed}, which {why}.")
        if self.max_slices is not None and (self.max_slices < 1 or self.view_column):
            wrong = "must be at least 1 and applies to slices, not views"
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
            raise ValueError(f"{named} both name {', '.join(both)}; remove it from one of them.")
        if len(set(self.columns.values())) < len(self.columns):
            raise ValueError(f"dataset.columns maps two names to one column of the table: {self.columns}.")
        for option in ("views", "view_columns", "roi_columns", "label_columns", "grades"):
            names = getattr(self, option)
            if len(set(names)) < len(names):
                raise ValueError(f"dataset.{option} has duplicate names: {', '.join(names)}.")
        if len(self.roi_columns) not in (0, 4):
            raise ValueError(f"dataset.roi_columns needs four columns [x0, y0, x1, y1], got {len(self.roi_columns)}.")

    @property
    def reads_columns(self) -> bool:
        """Whether columns are requested as inputs."""
        return bool(self.table_columns or self.numeric_columns or self.categorical_columns)

    @property
    def named_columns(self) -> list[str]:
        """Columns named as inputs by the options."""
        chosen = self.table_columns if isinstance(self.table_columns, list) else []
        return list(dict.fromkeys([*chosen, *self.numeric_columns, *self.categorical_columns]))

    @property
    def roles(self) -> dict[str, str]:
        """Column -> option that gives it a role of its own; such columns are not model inputs."""
        single = {getattr(self, f"{role}_column"): f"dataset.{role}_column" for role in reversed(_ROLES)}
        lists = ("view_columns", "roi_columns")
        several = {name: f"dataset.{option}" for option in lists for name in getattr(self, option)}
        joined = {self.join_on: "dataset.join_on"}
        return {name: option for name, option in (several | joined | single).items() if name is not None}

    def renamed(self, column: str) -> str:
        """The name, in the rows as they are read, of a column of the table; other names are returned unchanged."""
        name = {own: name for name, own in self.columns.items()}.get(column, column)
        return "label" if name == self.label_column else name

    @property
    def image_roots(self) -> list[str]:
        """The folders of ``image_root``."""
        return [self.image_root] if isinstance(self.image_root, str) else list(self.image_root or ())

    def for_columns(self) -> DatasetConfig:
        """The same data set with columns as inputs: those named, else all suitable ones."""
        return self if self.reads_columns else replace(self, table_columns="auto")

    def without_split(self) -> DatasetConfig:
        """The same data set without any setting of a split."""
        return replace(self, split_column=None, split_table=None, fold_column=None, folds={})


def handed_on(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The training settings of a model that also apply to new data."""
    return {name: settings[name] for name in _HANDED_ON if name in settings}


@dataclass
class SplitConfig:
    """Options of ``mmfusion split``.

    Attributes:
        data: Root folder of the data set, or its table.
        output: CSV file to write, for ``dataset.split_table``; an existing file is not overwritten.
        folds: Number of equal folds, for ``dataset.fold_column: fold`` and ``dataset.folds``; None draws train, val
            and test.
        seed: Random seed. A training run with the same seed and rows draws the same split.
        dataset: How to read the data; ``val_fraction`` and ``test_fraction`` set the share of the groups.
    """

    data: str
    output: str
    folds: int | None = None
    seed: int = 0
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
