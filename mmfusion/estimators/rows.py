"""Converts the input of an estimator to a table in memory and its reading options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.data import DatasetConfig
from mmfusion.data.cases import NORMAL_COLUMNS
from mmfusion.data.memory import is_frame
from mmfusion.images.kinds import IMAGE_SUFFIXES

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Inputs:
    """Input columns of ``X``, determined in ``fit``.

    Attributes:
        image: Column with the image paths, or None.
        text: Column with the texts, or None.
        numeric: Numeric columns.
        categorical: Categorical columns.
        auto: Whether training selects among the other columns.
        is_array: Whether ``X`` is purely numeric.
    """

    image: str | None = None
    text: str | None = None
    numeric: tuple[str, ...] = ()
    categorical: tuple[str, ...] = ()
    auto: bool = False
    is_array: bool = False

    def dataset(self, **options: Any) -> DatasetConfig:
        """The options for reading :func:`table_of`."""
        columns: dict[str, Any] = {"numeric_columns": list(self.numeric), "categorical_columns": list(self.categorical)}
        columns |= {"table_columns": "auto" if self.auto else None, "on_bad_column": "keep"}
        return DatasetConfig(image_column=self.image, text_column=self.text, split_column=None, **columns, **options)


def is_plain_array(X: Any, image_column: str | None, text_columns: Sequence[str | None]) -> bool:
    """Whether X is an array, or a numeric frame without images and texts."""
    if not is_frame(X):
        return True
    frame = pandas_of(X)
    special = {image_column, *text_columns} & {*map(str, frame.columns)}
    return not special and all(_is_numeric(frame[name]) for name in frame.columns)


def inputs_of(frame: pd.DataFrame, image: str | None, text: str | None, columns: str | Sequence[str] | None) -> Inputs:
    """The input columns of a frame.

    Args:
        frame: The frame.
        image: Column with the image paths, if in the frame.
        text: Column with the texts, if in the frame.
        columns: Names of other input columns; ``auto`` uses all, or lets training select if there are images or
            texts.

    Raises:
        ValueError: A column does not exist, or ``auto`` finds image paths in a column other than ``image``.
    """
    if image not in (None, "image", *frame.columns):
        raise ValueError(f"X has no column {image!r} (image_column); it has {', '.join(map(str, frame.columns))}.")
    image, text = (name if name in frame.columns else None for name in (image, text))
    others = [str(name) for name in frame.columns if name not in {image, text, *NORMAL_COLUMNS}]
    auto = columns == "auto"
    chosen = others if auto else [columns] if isinstance(columns, str) else list(columns or [])
    if unknown := [name for name in chosen if name not in frame.columns]:
        raise ValueError(
            f"X has no column {', '.join(map(repr, unknown))}; it has {', '.join(map(str, frame.columns))}."
        )
    if auto and image is None and (paths := [name for name in others if _has_image_paths(frame[name])]):
        raise ValueError(
            f"Column {paths[0]!r} of X has image paths: pass image_column={paths[0]!r}, or leave it out of columns."
        )
    if auto and (image or text):
        return Inputs(image, text, auto=bool(others))
    numeric = tuple(name for name in chosen if _is_numeric(frame[name]))
    return Inputs(image, text, numeric, tuple(name for name in chosen if name not in numeric))


def table_of(X: Any, names: Sequence[str], inputs: Inputs, more: dict[str, Any]) -> pd.DataFrame:
    """The rows as a table: a frame unchanged, an array with names; plus additional columns."""
    import pandas as pd

    frame = pd.DataFrame(X, columns=list(names)) if inputs.is_array else X
    nothing = {} if inputs.image or inputs.numeric or inputs.categorical or inputs.auto else {"image": None}
    return frame.assign(**nothing, **more)


def label_names(classes: NDArray[Any]) -> list[str]:
    """Classes as label names: whole numbers without ``.0``, or numbered if two names coincide."""
    from mmfusion.text.template import cell_text

    names = [cell_text(value) for value in classes.tolist()]
    told = [name for name in names if name is not None]
    return told if len(set(told)) == len(names) else [f"class {number}" for number in range(len(names))]


def pandas_of(X: Any) -> pd.DataFrame:
    """Convert a pandas or pyarrow table to a pandas frame."""
    frame: pd.DataFrame = X.to_pandas() if hasattr(X, "to_pandas") else X
    return frame


def _is_numeric(column: Any) -> bool:
    from pandas.api.types import is_bool_dtype, is_complex_dtype, is_numeric_dtype

    return is_numeric_dtype(column) and not is_bool_dtype(column) and not is_complex_dtype(column)


def _has_image_paths(column: Any) -> bool:
    cells = [cell for cell in column if isinstance(cell, str)]
    return bool(cells) and all(cell.lower().endswith(IMAGE_SUFFIXES) for cell in cells)


def in_order(probabilities: NDArray[np.float32], labels: Sequence[str], names: Sequence[str]) -> NDArray[np.float64]:
    """Reorder probabilities (N, C) to other class names, normalized in double precision."""
    ordered = probabilities[:, [list(labels).index(name) for name in names]].astype(np.float64)
    found: NDArray[np.float64] = ordered / ordered.sum(axis=1, keepdims=True)
    return found
