"""Rows as encoded items: those of a table, and those that an application gives as dicts."""

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

#: what a row that cannot be read raises: a missing or damaged file, an array that is no picture, an empty row.
ROW_ERRORS = (ValueError, OSError, TypeError)

#: modality -> what it is called where a row has none.
_KINDS = {"image": "image", "text": "text", "table": "column"}

#: what a row's image may be called, as in tables.
_IMAGE_KEYS = ("image_id", "file_name")

#: keys of a row that are encoded as images, and its label, which prediction does not read.
_NOT_TEXT = ("label", "image", "images", "roi", "bag")


def with_content(item: dict[str, Any]) -> dict[str, Any]:
    """The encoded row itself; ValueError where it has nothing for this model to read: a prediction would be a guess."""
    if not any(item.get(f"{kind}_present") for kind in _KINDS):
        kinds = [name for kind, name in _KINDS.items() if f"{kind}_present" in item]
        raise ValueError(f"The row has no {' and no '.join(kinds)} for the model to read.")
    return item


class AllRows(Dataset[dict[str, Any]]):
    """Every row of a table in its order, encoded; asking for one that cannot be read raises one of ``ROW_ERRORS``.

    Args:
        cases: The table, with its problems.
        processor: How a case becomes tensors.
        open_rows: Makes the data set of sound rows; None encodes them with the processor
            (:class:`~mmfusion.data.MultimodalDataset`).
        refuse_empty: Whether a row without a modality that the model reads counts as unreadable. Otherwise it is
            predicted from the learned tokens, so that all models of a comparison are measured on the same rows.

    Attributes:
        ids: (rows,) texts; ``row-N`` where a row has no id.
        labels: (rows,) int64 positions of the classes, -1 where unknown; of other tasks (rows, ...).
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
        """What of the sound rows the model has not learned; of rows that the processor encodes, not of features."""
        found: InputNotices = self._rows.notices()
        return found

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self._errors:
            raise ValueError(self._errors[index])
        item = self._rows[int(self._position[index])]
        return with_content(item) if self._refuse_empty else item


@dataclass(frozen=True)
class DictRows:
    """Rows given as dicts, encoded when they are asked for.

    Args:
        rows: As :meth:`mmfusion.Predictor.predict` takes them.
        processor: How a row becomes tensors.
        layout: What the model's image tower reads per sample: ``image``, ``slices``, ``views`` or ``bags``; None for no
            images.
    """

    rows: Sequence[Mapping[str, Any]]
    processor: Processor
    layout: str | None = "image"

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return self.processor.collate(items)

    def __len__(self) -> int:
        return len(self.rows)

    def notices(self) -> InputNotices:
        """What of the rows the model has not learned."""
        notices = InputNotices()
        notices.see(len(self))
        if (table := self.processor.table) is not None and len(self):
            cells = {name: [row.get(name) for row in self.rows] for name in table.names}
            notices = table.encode_columns(cells, self.processor.missing_values).notices
        texts = [self._text(row) for row in self.rows]
        note_texts(notices, texts, self.processor.tokenizer, self.processor.max_length)
        return notices

    def _text(self, row: Mapping[str, Any]) -> str | None:
        """The text of a row; None where it is none, which the row says when it is encoded."""
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
        """What the model's tower takes, of the row's ``image`` or ``images`` and ``roi``."""
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
            raise ValueError(f"The row has {len(images)} images, and the model reads one.")
        found: dict[str, Any] = {"image": images[0]} if images else {}
        if self._has_regions:
            found["roi"] = row.get("roi") or "centre"
        return found

    @cached_property
    def _has_regions(self) -> bool:
        return any(row.get("roi") is not None for row in self.rows)


def frame_rows(frame: Any, dataset: DatasetConfig) -> list[dict[str, Any]]:
    """The rows of a pandas or pyarrow table as dicts; parts that have another name in the data set get that of a row.

    Args:
        frame: The table.
        dataset: How the data set is read that the model was trained on.
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
    """The rows that an application gave, as a list, by the names that the models read.

    Those of a table are dicts then, see :func:`frame_rows`. A warning says which columns the rows lack, and which of
    their keys no model reads; of a table the columns that are not read are no news.

    Args:
        rows: As :meth:`mmfusion.Predictor.predict` takes them.
        processors: Of the model, or of several.
        dataset: How the data set is read that the model was trained on, with the names of the rows' columns.

    Raises:
        TypeError: it is a single row, or holds something other than dicts.
    """
    of_table = is_frame(rows)
    if isinstance(rows, Mapping | str) or not (of_table or isinstance(rows, Iterable)):
        raise TypeError("predict takes a list of rows, such as [{'image': 'a.jpg'}], or a DataFrame, not a single row.")
    rows = list(rows) if not of_table else frame_rows(rows, dataset)
    rows = [named_row(check_row(row), dataset.columns) for row in rows]
    if rows:
        there = {str(key) for row in rows for key in row}
        lacking = () if "text" in there else (line for each in processors for line in lacking_columns(each, there))
        warn_of([*lacking, *(() if of_table else unread_keys(rows, processors))])
    return rows


def named_row(row: Mapping[str, Any], columns: Mapping[str, str]) -> Mapping[str, Any]:
    """A row by the names that a model reads; its image may be called as in tables, and is missing where it is empty.

    Args:
        row: The row.
        columns: Name that a model reads -> name in the row.

    Raises:
        ValueError: The row has a key of either name.
    """
    names = {column: name for name, column in columns.items()}
    if both := [name for name, column in columns.items() if {name, column} <= row.keys() and name not in names]:
        raise ValueError(f"A row has {both[0]!r}, and columns takes {columns[both[0]]!r} for it; leave one out.")
    renamed = {names.get(key, key): value for key, value in row.items()}
    if "image" not in renamed and "images" not in renamed:
        other = next((key for key in _IMAGE_KEYS if key in renamed), None)
        renamed |= {"image": renamed.pop(other)} if other is not None else {}
    image = renamed.get("image")
    if (isinstance(image, str) and not image.strip()) or (isinstance(image, float) and image != image):
        renamed["image"] = None
    return renamed


def tell_notices(datasets: Iterable[Any]) -> None:
    """Warn of inputs unlike the training rows; what several models of an ensemble have in common is told once."""
    warn_of(line for rows in datasets for line in rows.notices().lines())


def check_row(row: Any) -> Mapping[str, Any]:
    """The row itself; TypeError where it is no dict."""
    if not isinstance(row, Mapping):
        alone = f"; an image alone is {{'image': {row!r}}}" if isinstance(row, str | os.PathLike) else ""
        raise TypeError(f"A row is a dict with 'image', 'text' or metadata, not {type(row).__name__}{alone}.")
    return row
