"""Reading step: find the columns by role."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from mmfusion.data.cases import NORMAL_COLUMNS
from mmfusion.data.class_folders import folder_labels
from mmfusion.data.config import DatasetConfig
from mmfusion.data.formats import image_column
from mmfusion.data.one_hot import layout_hint
from mmfusion.data.reading import Columns, Reading
from mmfusion.names import near
from mmfusion.text.template import cell_text, template_fields


def find_columns(reading: Reading) -> Reading:
    """Find each column by its option or default name. A column named by the user must exist.

    Raises:
        ValueError: Columns are missing (all named at once), the data have no labels, or the text template names a
            column that is not metadata.
    """
    raw, config, required = reading.raw, reading.config, reading.require_labels
    if raw.format == "folder" and required:
        what = "a folder of images, which has no labels; add a table or class folders"
        raise ValueError(f"{reading.path} was read as {what}.")
    missing: list[str] = []

    def find(option: str, name: str | None, default: str = "", *, required: bool = True) -> str | None:
        if name is None:
            return default if default in raw.columns else None
        if name not in raw.columns and required:
            missing.append(f"{name!r} (dataset.{option})")
        return name if name in raw.columns else None

    image = config.bag_column or (config.view_columns[0] if config.view_columns else image_column(raw, config))
    if image is None and raw.format == "report":
        image = next(iter(raw.columns))
    # rows with input columns need no image, but a column named explicitly must exist
    if image is None and (config.image_column is not None or not config.reads_columns):
        wanted = repr(config.image_column) if config.image_column else "'image', 'image_id' or 'file_name'"
        missing.append(f"{wanted} (dataset.image_column)")
    split = config.split_column
    if config.split_table is not None:
        split = None
    elif config.fold_column:  # the split made from folds is read even if the table's own split column is ignored
        split = split or "split"
    no_group = config.group_column == "none" and "none" not in raw.columns
    by_folder = image is not None and _labelled_by_folder(reading, image)
    columns = Columns(
        image=image or "",
        label=None if by_folder else find("label_column", config.label_column, required=required),
        id=find("id_column", config.id_column),
        text=find("text_column", config.text_column, "text"),
        group=None if no_group else find("group_column", config.group_column, "group", required=required),
        split=find("split_column", split, required=required and split != DatasetConfig.split_column),
    )
    for option in ("study_column", "slice_column", "view_column", "view_columns", "roi_columns", "bag_column"):
        names = getattr(config, option)
        for name in names if isinstance(names, list) else [names]:
            find(option, name)
    fields = template_fields(config.text_template) if config.text_template else ()
    missing += [f"{name!r} (dataset.text_template)" for name in fields if name not in raw.columns]
    if required and reading.known_labels is None:  # a trained model can do without some of its columns
        lacking = {name: near(name, raw.columns) for name in config.named_columns if name not in raw.columns}
        missing += [f"{name!r} (named as an input{f'; is it {it!r}?' if it else ''})" for name, it in lacking.items()]
    if missing:
        fix = "Name the right column with the option shown, or add the column."
        there = f"{', '.join(raw.columns)}. {fix}{layout_hint(reading)}{'' if image else _folder_hint(reading)}"
        raise ValueError(f"{raw.source} has no column {', '.join(missing)}; it has {there}")
    _check_template(fields, columns, config)
    return replace(reading, columns=columns)


def _folder_hint(reading: Reading) -> str:
    """What to add to a message about a missing image column where another names folders, as those of patients."""
    for name, cells in reading.raw.columns.items():
        cell = (cell_text(cells[0]) if len(cells) else None) or ""
        with suppress(OSError, ValueError):
            if cell == Path(cell).name and cell.strip(".") and (reading.folder / cell).is_dir():
                return f" {name!r} names folders, of slices with --dataset.image_column {name} --dataset.slices all."
    return ""


def _labelled_by_folder(reading: Reading, image: str) -> bool:
    raw = reading.raw
    if raw.format != "imagefolder" or reading.config.label_column in raw.columns or image not in raw.columns:
        return False
    return any(folder_labels([cell_text(cell) for cell in raw.columns[image]]))


def _check_template(fields: Sequence[str], columns: Columns, config: DatasetConfig) -> None:
    """Reject a template that would put the label, or a proxy of it, into the text."""
    # what the normal form calls label or split is not metadata, whatever the table calls its own columns
    normal = {name for name in NORMAL_COLUMNS if getattr(columns, name) != name} | {"label", "split"}
    others = {columns.label, columns.split, columns.image, columns.text, *config.view_columns}
    if forbidden := (others | normal).intersection(fields):
        raise ValueError(
            f"dataset.text_template names {', '.join(map(repr, sorted(filter(None, forbidden))))}; "
            "it may name only metadata columns, not the label, split, image, text, id or group."
        )
