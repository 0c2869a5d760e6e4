"""What a user says about a data set. Plain dataclasses: importing this module loads no heavy library."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class DatasetConfig:
    """How to read a data set below its root folder.

    Attributes:
        format: ``table`` (CSV or Parquet rows), ``report`` (``image.csv`` + ``response.json``), ``imagefolder``
            (``metadata.csv|jsonl`` with ``file_name``), ``folder`` (images without a table), or ``auto``.
        table: table file, relative to the root; None looks for the only table there.
        image_root: folder of the images, relative to the root; None tries the root and ``images``.
        image_column: column with the image path or id; None takes ``image``, ``image_id`` or ``file_name``.
        label_column: column with the class name; an imagefolder without it has its classes from the sub-folders.
        id_column: column that identifies a row in reports and predictions; None takes the image value.
        text_column: free text, used as it is; None takes ``text`` where there is such a column.
        text_template: sentence made from metadata columns, before the free text, e.g.
            ``"{age}-year-old {sex}, lesion on the {localization}"``; a missing field is left out together with the
            words that belong to it.
        group_column: patient or lesion; rows of one group never lie on both sides of a split. None takes ``group``
            where there is such a column.
        split_column: column with ``train``, ``val`` and ``test``; without such a column, a grouped, stratified split is
            drawn.
        val_fraction: share of the groups for validation when the split is drawn.
        test_fraction: share of the groups for test when the split is drawn.
        missing_values: cell texts (any case) that count as missing in metadata columns.
        on_bad_row: ``fail`` stops with the list of bad rows before training; ``skip`` leaves them out and says so.
    """

    format: str = "auto"
    table: str | None = None
    image_root: str | None = None
    image_column: str | None = None
    label_column: str = "label"
    id_column: str | None = None
    text_column: str | None = None
    text_template: str | None = None
    group_column: str | None = None
    split_column: str = "split"
    val_fraction: float = 0.15
    test_fraction: float = 0.15
    missing_values: list[str] = field(default_factory=lambda: ["", "nan", "na", "n/a", "none", "null", "unknown"])
    on_bad_row: str = "fail"
