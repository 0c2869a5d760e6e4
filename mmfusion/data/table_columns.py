"""Columns of a table as inputs of a model: how each is read, fitted on training rows and saved as plain values."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfusion.data.notices import InputNotices, NoticeKind
from mmfusion.data.splits import group_codes
from mmfusion.text.template import cell_number, cell_text

#: Model inputs that are made of columns.
TABLE_INPUTS = ("numeric_values", "category_ids", "table_present")
#: Positions of a category that are not in its vocabulary.
MISSING, UNSEEN = 0, 1
#: The largest number that the model's precision holds.
LARGEST = float(np.finfo(np.float32).max)
#: A number is far outside the training range when it lies further out than this share of the range's width.
FAR = 0.5
#: Numbers further from the median than so many standard deviations (by the quartiles) count as lying there, for mean
#: and scale alone: one slip of the pen among a thousand ages changes neither.
_CLIPPED = 5.0
_MOST_BINS, _ROWS_A_BIN = 32, 20


@dataclass(frozen=True)
class NumericColumn:
    """A column of numbers.

    Attributes:
        name: Name in the table.
        mean: Mean of the training rows, outliers drawn in.
        scale: Standard deviation, likewise; above 0.
        low: Lower end of the training range; at least ``privacy.min_patients`` patients have this value or a lower one.
        high: Upper end, likewise.
        edges: Quantiles of the training rows from ``low`` to ``high``, strictly increasing, two at least.
    """

    name: str
    mean: float
    scale: float
    low: float
    high: float
    edges: list[float]

    def __post_init__(self) -> None:
        numbers = [self.mean, self.scale, self.low, self.high, *self.edges]
        if not all(isinstance(number, (int, float)) and math.isfinite(number) for number in numbers):
            raise ValueError(f"The numeric column {self.name!r} has a setting that is no finite number.")
        if self.scale <= 0 or self.low >= self.high:
            raise ValueError(f"The numeric column {self.name!r} needs scale above 0 and low below high.")
        if len(self.edges) < 2 or not (np.diff(np.array(self.edges, dtype=np.float32)) > 0).all():
            raise ValueError(f"The edges of the numeric column {self.name!r} must increase; got {self.edges}.")

    @classmethod
    def fit(cls, name: str, cells: Sequence[Any], groups: NDArray[np.int64], min_patients: int) -> NumericColumn:
        """The column as its training cells say; those that are missing or no number are left out.

        Raises:
            ValueError: No cell holds a number.
        """
        numbers = np.array([read_number(cell) for cell in cells], dtype=np.float64)
        there = np.isfinite(numbers)
        values, groups = numbers[there], groups[there]
        if not len(values):
            raise ValueError(f"The numeric column {name!r} holds no number in the training rows.")
        lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
        reach = _CLIPPED * (upper - lower) / 1.349  # the quartiles of a normal distribution, in standard deviations
        drawn_in = np.clip(values, median - reach, median + reach) if reach > 0 else values
        mean, scale = float(drawn_in.mean()), float(drawn_in.std())
        scale = scale if scale > 0 else 1.0
        low, high = _shared_range(values, groups, min_patients) or (mean - 2 * scale, mean + 2 * scale)
        bins = max(1, min(_MOST_BINS, len(values) // _ROWS_A_BIN))
        inner = np.quantile(np.clip(values, low, high), np.linspace(0, 1, bins + 1)[1:-1])
        edges = np.unique(np.array([low, *inner, high], dtype=np.float32)).tolist()
        if len(edges) < 2:  # numbers that float32 cannot tell apart
            high = low + max(scale, abs(low) * 1e-3)
            edges = [low, high]
        return cls(name, mean, scale, low, high, edges)

    def is_far(self, number: float) -> bool:
        """Whether a number lies far outside the training range."""
        reach = FAR * (self.high - self.low)
        return not self.low - reach <= number <= self.high + reach


@dataclass(frozen=True)
class CategoricalColumn:
    """A column of categories.

    Attributes:
        name: Name in the table.
        values: The vocabulary, sorted: the values that enough patients of the training rows share.
    """

    name: str
    values: list[str]

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in self.values) or self.values != sorted(set(self.values)):
            raise ValueError(f"The values of the categorical column {self.name!r} must be texts, sorted, each once.")

    @classmethod
    def fit(cls, name: str, cells: Sequence[Any], groups: NDArray[np.int64], min_patients: int) -> CategoricalColumn:
        """The column with the values that at least ``min_patients`` groups share."""
        texts = (cell_text(cell) for cell in cells)
        patients: dict[str, set[int]] = {}
        for text, group in zip(texts, groups.tolist(), strict=True):
            if text is not None:
                patients.setdefault(text, set()).add(group)
        return cls(name, sorted(value for value, who in patients.items() if len(who) >= min_patients))


class EncodedTable(NamedTuple):
    """Rows as the model reads them.

    Attributes:
        numeric_values: (rows, C) float32, NaN where a cell is missing.
        category_ids: (rows, K) int64, 0 where a cell is missing, 1 where its value is not in the vocabulary.
        notices: What of the cells the model has not learned.
    """

    numeric_values: NDArray[np.float32]
    category_ids: NDArray[np.int64]
    notices: InputNotices

    @property
    def present(self) -> NDArray[np.bool_]:
        """(rows,) whether any cell of a row is there."""
        numbers = ~np.isnan(self.numeric_values)
        found: NDArray[np.bool_] = numbers.any(axis=1) | (self.category_ids != MISSING).any(axis=1)
        return found


@dataclass(frozen=True)
class TableColumns:
    """The columns that a model reads, and how.

    The order of columns in a table does not matter. A cell is a text or any plain value of Python, NumPy or pandas, and
    is missing where :func:`~mmfusion.text.template.cell_text` says so. A cell of a numeric column that holds no finite
    number is missing too, and is told.

    Attributes:
        numeric: Columns of numbers, by name.
        categorical: Columns of categories, by name.

    Raises:
        ValueError: There is no column, or two have one name.
    """

    numeric: list[NumericColumn] = field(default_factory=list)
    categorical: list[CategoricalColumn] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"A table has columns of different names; got {self.names or 'none'}.")

    @classmethod
    def fit(
        cls,
        cells: Any,
        *,
        numeric: Iterable[str] = (),
        categorical: Iterable[str] = (),
        groups: Sequence[Hashable | None] | None = None,
        min_patients: int = 5,
    ) -> TableColumns:
        """Scales, quantiles and vocabularies of training rows, the only ones that may be given here.

        Args:
            cells: Column -> cells of the training rows: a dict, or a data frame.
            numeric: Names of the columns to read as numbers.
            categorical: Names of the columns to read as categories.
            groups: Patient of each row; a row without one is its own.
            min_patients: A value is in a vocabulary, and an end of a range, when so many patients share it.

        Raises:
            ValueError: A numeric column holds no number.
            KeyError: There is no such column.
        """
        numeric, categorical = sorted(numeric), sorted(categorical)
        rows = len(cells[next(iter([*numeric, *categorical]))])
        codes = group_codes(groups, rows)
        return cls(
            [NumericColumn.fit(name, list(cells[name]), codes, min_patients) for name in numeric],
            [CategoricalColumn.fit(name, list(cells[name]), codes, min_patients) for name in categorical],
        )

    @property
    def names(self) -> list[str]:
        """Names of all columns, numeric ones first."""
        return [*(column.name for column in self.numeric), *(column.name for column in self.categorical)]

    def table_args(self) -> dict[str, Any]:
        """The keywords ``table_args`` of :func:`mmfusion.create_model` that these columns ask for."""
        return {
            "numeric": len(self.numeric),
            "categories": [len(column.values) for column in self.categorical],
            "bins": [len(column.edges) for column in self.numeric],
        }

    def statistics(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Means (C,), scales (C,) and edges of each numeric column, which the model's tower scales by."""
        mean = torch.tensor([column.mean for column in self.numeric], dtype=torch.float64)
        scale = torch.tensor([column.scale for column in self.numeric], dtype=torch.float64)
        return mean, scale, [torch.tensor(column.edges, dtype=torch.float64) for column in self.numeric]

    def renamed(self, names: Mapping[str, str]) -> TableColumns:
        """The same columns, read under other names: old -> new."""
        return TableColumns(
            [replace(column, name=names.get(column.name, column.name)) for column in self.numeric],
            [replace(column, name=names.get(column.name, column.name)) for column in self.categorical],
        )

    def encode(
        self, row: Mapping[str, Any], missing_values: Iterable[str] = ("", "nan")
    ) -> tuple[list[float], list[int]]:
        """Numbers and category ids of one row; a column that the row lacks is missing.

        Args:
            row: Column -> cell.
            missing_values: Lower-case texts that count as missing, whatever the cell's case.
        """
        encoded = self.encode_columns({name: [row.get(name)] for name in self.names}, missing_values)
        return encoded.numeric_values[0].tolist(), encoded.category_ids[0].tolist()

    def encode_columns(self, cells: Any, missing_values: Iterable[str] = ("", "nan")) -> EncodedTable:
        """Many rows at once.

        Args:
            cells: Column -> its cells: a dict, or a data frame. A column of the model that is not there is missing in
                every row.
            missing_values: As for :meth:`encode`.
        """
        rows = len(next(iter(cells.values()), ())) if isinstance(cells, Mapping) else len(cells)
        numbers = np.full((rows, len(self.numeric)), np.nan, dtype=np.float32)
        ids = np.zeros((rows, len(self.categorical)), dtype=np.int64)
        notices, missing_values = InputNotices(), list(missing_values)
        notices.see(rows)

        def texts(name: str) -> list[str | None]:
            return [None if cell is None else cell_text(cell, missing_values) for cell in cells[name]]

        for i, column in enumerate(self.numeric):
            for row, text in enumerate(texts(column.name) if column.name in cells else ()):
                number = read_number(text)
                numbers[row, i] = number
                if math.isnan(number):
                    if text is not None:
                        notices.add(NoticeKind.UNREADABLE_NUMBER, column.name, text)
                elif column.is_far(number):
                    notices.add(NoticeKind.FAR_NUMBER, column.name, text)
        for i, named in enumerate(self.categorical):
            known = {value: j for j, value in enumerate(named.values, start=UNSEEN + 1)}
            for row, text in enumerate(texts(named.name) if named.name in cells else ()):
                if text is not None:
                    ids[row, i] = known.get(text, UNSEEN)
                    if text not in known:
                        notices.add(NoticeKind.UNSEEN_CATEGORY, named.name, text)
        return EncodedTable(numbers, ids, notices)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON holds them."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableColumns:
        """The columns that :meth:`to_dict` described.

        Raises:
            ValueError: A setting is unknown, missing or out of range.
        """
        try:
            return cls(
                [NumericColumn(**column) for column in values["numeric"]],
                [CategoricalColumn(**column) for column in values["categorical"]],
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"Settings of table columns: {error}.") from None


def read_number(cell: Any) -> float:
    """The number that a cell holds; NaN where it is missing or no finite number in single precision.

    Python reads ``1_000`` as a number, which no table means: it is none here.
    """
    text = cell_text(cell)
    number = cell_number(text) if text is not None and "_" not in text else None
    return math.nan if number is None or abs(number) > LARGEST else number


def has_decimal_comma(cell: str) -> bool:
    """Whether a cell is a number but for its decimal comma."""
    return cell.count(",") == 1 and not math.isnan(read_number(cell.replace(",", ".")))


def _shared_range(
    values: NDArray[np.float64], groups: NDArray[np.int64], min_patients: int
) -> tuple[float, float] | None:
    """The lowest and the highest value that enough groups reach; None where there are too few of them."""
    codes = np.unique(groups, return_inverse=True)[1]
    lowest, highest = np.full(codes.max() + 1, np.inf), np.full(codes.max() + 1, -np.inf)
    np.minimum.at(lowest, codes, values)
    np.maximum.at(highest, codes, values)
    if len(lowest) < min_patients:
        return None
    low, high = float(np.sort(lowest)[min_patients - 1]), float(np.sort(highest)[-min_patients])
    return (low, high) if low < high else None
