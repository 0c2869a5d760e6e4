"""Rows as encoded items: from a table, or from dicts given by an application."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from mmfusion.data import CaseTable, DatasetConfig, MultimodalDataset, Processor
from mmfusion.data.memory import MemoryTable, is_frame
from mmfusion.data.notices import InputNotices, note_texts
from mmfusion.inference.columns import lacking_columns, unread_keys, warn_of

#: Errors of unreadable rows: a missing or damaged file, an invalid array, an empty row.
ROW_ERRORS = (ValueError, OSError, TypeError)

#: Modality -> its name in messages.
_KINDS = {"image": "image", "text": "text", "table": "column"}

#: Accepted names of a row's image, as in tables.
_IMAGE_KEYS = ("image_id", "file_name")

#: Keys of a row encoded as images, and its label, which prediction ignores.
_NOT_TEXT = ("label", "image", "images", "roi", "bag")


def none_readable(rows: int, unreadable: int, first: str | None) -> str:
    """Error message of a command whose every row has an error; empty if one has none, or there are no rows."""
    return f"None of the {rows:,} rows gave a result; the first: {first}" if unreadable == rows > 0 else ""


def with_content(item: dict[str, Any]) -> dict[str, Any]:
    """Return the encoded row; ValueError if it has no input for this model, since a prediction would be a guess."""
    if not any(item.get(f"{kind}_present") for kind in _KINDS):
        kinds = [name for kind, name in _KINDS.items() if f"{kind}_present" in item]
        raise ValueError(f"The row has no {' and no '.join(kinds)} for the model.")
    return item


class AllRows(Dataset[dict[str, Any]]):
    """Every row of a table in order, encoded; an unreadable one raises one of ``ROW_ERRORS``.

    Args:
        cases: The table, with its problems.
        processor: Converts cases to tensors.
        open_rows: Function that opens valid rows; None encodes them with the processor
            (:class:`~mmfusion.data.MultimodalDataset`).
        refuse_empty: Whether rows without any input of the model are unreadable. Otherwise they are predicted from the
            learned tokens, so that all models of a comparison are evaluated on the same rows.

    Attributes:
        ids: (rows,) texts; ``row-N`` for rows without an id.
        labels: (rows,) int64 class indices, -1 if unknown; for other tasks (rows, ...).
        collate: List of items -> batch.
    """

    def __init__(
        self,
        cases: CaseTable,
        processor: Processor,
        *,
        open_rows: Callable[[CaseTable], Any] | None = None,
        refuse_empty: bool = False,
    ) -> None:
        frame = cases.frame
        self.ids = [f"row-{row}" if id_ is None else id_ for row, id_ in frame["id"].items()]
        self._refuse_empty = refuse_empty
        self._errors: dict[int, str] = {}
        for problem in filter(lambda problem: problem.unreadable, cases.problems):
            position = frame.index.get_loc(problem.row)
            known = [self._errors[position]] if position in self._errors else []
            self._errors[position] = "; ".join([*known, problem.message])
        readable = np.ones(len(frame), dtype=bool)
        readable[list(self._errors)] = False
        sound = replace(cases, frame=frame[readable], problems=[])
        self._rows = MultimodalDataset(sound, processor) if open_rows is None else open_rows(sound)
        self.collate = self._rows.collate
        self._position = np.cumsum(readable) - 1
        found, blank = self._rows.labels, processor.question.blank
        self.labels = np.full((len(frame), *found.shape[1:]), blank, dtype=found.dtype)
        self.labels[readable] = found

    def __len__(self) -> int:
        return len(self.ids)

    def notices(self) -> InputNotices:
        """Inputs of the valid rows that the model has not learned; empty for cached features."""
        found: InputNotices = self._rows.notices()
        return found

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self._errors:
            raise ValueError(self._errors[index])
        item = self._rows[int(self._position[index])]
        return with_content(item) if self._refuse_empty else item


@dataclass(frozen=True)
class DictRows:
    """Rows given as dicts, encoded on access.

    Args:
        rows: As in :meth:`mmfusion.Predictor.predict`.
        processor: Converts rows to tensors.
        layout: Input of the model's image tower: ``image``, ``slices``, ``views`` or ``bags``; None for no images.

    """

    rows: Sequence[Mapping[str, Any]]
    processor: Processor
    layout: str | None = "image"

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return self.processor.collate(items)

    def __len__(self) -> int:
        return len(self.rows)

    def notices(self) -> InputNotices:
        """Inputs of the rows that the model has not learned."""
        notices = InputNotices()
        notices.see(len(self))
        if (table := self.processor.table) is not None and len(self):
            cells = {name: [row.get(name) for row in self.rows] for name in table.names}
            notices = table.encode_columns(cells, self.processor.missing_values).notices
        texts = [self._text(row) for row in self.rows]
        note_texts(notices, texts, self.processor.tokenizer, self.processor.max_length)
        return notices

    def _text(self, row: Mapping[str, Any]) -> str | None:
        """The text of a row; None if invalid, which is reported when the row is encoded."""
        try:
            return self.processor.text_of(self._content(row))
        except ROW_ERRORS:
            return None

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = self.rows[index]
        return with_content(self.processor.encode_row(self._content(row) | self._images(row)))

    @staticmethod
    def _content(row: Mapping[str, Any]) -> dict[str, Any]:
        return {key: value for key, value in row.items() if key not in _NOT_TEXT}

    def _images(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Inputs of the model's tower from the row's ``image`` or ``images`` and ``roi``."""
        if self.layout is None:
            return {}
        if self.layout == "bags":
            return {"bag": row.get("bag")}
        images = row.get("images")
        images = [row.get("image")] if images is None else list(images)
        if self.layout == "views":
            return {"views": images}
        images = [image for image in images if image is not None]
        if self.layout == "slices":
            return {"slices": images}
        if len(images) > 1:
            raise ValueError(f"The row has {len(images)} images, but the model expects one.")
        found: dict[str, Any] = {"image": images[0]} if images else {}
        if self._has_regions:
            found["roi"] = row.get("roi") or "centre"
        return found

    @cached_property
    def _has_regions(self) -> bool:
        return any(row.get("roi") is not None for row in self.rows)


def frame_rows(frame: Any, dataset: DatasetConfig) -> list[dict[str, Any]]:
    """Rows of a pandas or pyarrow table as dicts, with the column names of the data set mapped to those of a row.

    Args:
        frame: The table.
        dataset: How the training data were read.
    """
    rows = MemoryTable.of(frame).rows()
    parts = {"image": dataset.image_column, "text": dataset.text_column, "bag": dataset.bag_column}
    parts = {part: name for part, name in parts.items() if part not in dataset.columns}
    for row in rows:
        row |= {part: row[name] for part, name in parts.items() if name in row and part not in row}
        if views := [name for name in dataset.view_columns if name in row]:
            row.setdefault("images", [row[name] for name in views])
        if dataset.roi_columns and all(name in row for name in dataset.roi_columns):
            corners = [row[name] for name in dataset.roi_columns]
            row.setdefault("roi", None if None in corners else tuple(map(float, corners)))
    return rows


def checked_rows(rows: Any, processors: Sequence[Processor], dataset: DatasetConfig) -> list[Mapping[str, Any]]:
    """The rows given by an application as a list, with the names used by the models.

    Tables are converted to dicts, see :func:`frame_rows`. Warnings list columns that the rows lack and, except for
    tables, keys that no model uses.

    Args:
        rows: As in :meth:`mmfusion.Predictor.predict`.
        processors: Processors of one or several models.
        dataset: How the training data were read, with the names of the rows' columns.

    Raises:
        TypeError: It is a single row, or has elements other than dicts.
    """
    of_table = is_frame(rows)
    if isinstance(rows, Mapping | str) or not (of_table or isinstance(rows, Iterable)):
        raise TypeError("predict needs a list of rows, such as [{'image': 'a.jpg'}], or a DataFrame, not a single row.")
    rows = list(rows) if not of_table else frame_rows(rows, dataset)
    rows = [named_row(check_row(row), dataset.columns) for row in rows]
    if rows:
        there = {str(key) for row in rows for key in row}
        lacking = () if "text" in there else (line for each in processors for line in lacking_columns(each, there))
        warn_of([*lacking, *(() if of_table else unread_keys(rows, processors))])
    return rows


def named_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> Mapping[str, Any]:
    """A row with the names used by a model; alternative names of the image are accepted, and empty ones are missing.

    Args:
        row: The row.
        columns: Name used by a model -> name in the row.

    Raises:
        ValueError: The row has both names.
    """
    names = {column: name for name, column in columns.items()}
    if both := [name for name, column in columns.items() if {name, column} <= row.keys() and name not in names]:
        raise ValueError(f"A row has {both[0]!r}, but columns maps {columns[both[0]]!r} to it; remove one of them.")
    renamed = {names.get(key, key): value for key, value in row.items()}
    if "image" not in renamed and "images" not in renamed:
        other = next((key for key in _IMAGE_KEYS if key in renamed), None)
        renamed |= {"image": renamed.pop(other)} if other is not None else {}
    image = renamed.get("image")
    if (isinstance(image, str) and not image.strip()) or (isinstance(image, float) and image != image):
        renamed["image"] = None
    return renamed


def tell_notices(datasets: Iterable[Any]) -> None:
    """Warn of inputs unlike the training rows; the same warning of several ensemble members appears once."""
    warn_of(line for rows in datasets for line in rows.notices().lines())


def check_row(row: Any) -> Mapping[str, Any]:
    """Return the row; TypeError if it is not a dict."""
    if not isinstance(row, Mapping):
        alone = f"; for a single image pass {{'image': {row!r}}}" if isinstance(row, str | os.PathLike) else ""
        raise TypeError(f"A row must be a dict with 'image', 'text' or metadata, not {type(row).__name__}{alone}.")
    return row
