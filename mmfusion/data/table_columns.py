"""Table columns as model inputs: how each is encoded, fitted on the training rows and saved as plain values."""

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

#: Model inputs made from columns.
TABLE_INPUTS = ("numeric_values", "category_ids", "table_present")
#: Reserved category ids outside the vocabulary.
MISSING, UNSEEN = 0, 1
#: Largest number in single precision.
LARGEST = float(np.finfo(np.float32).max)
#: Distance from the training range, as a share of its width, beyond which a number is far outside.
FAR = 0.5
#: Numbers further from the median than this many standard deviations (estimated by quartiles) are clipped for mean
#: and scale, so that a typing error among a thousand ages changes neither.
_CLIPPED = 5.0
_MOST_BINS, _ROWS_A_BIN = 32, 20


@dataclass(frozen=True)
class NumericColumn:
    """A numeric column.

    Attributes:
        name: Name in the table.
        mean: Mean of the training rows after clipping outliers.
        scale: Standard deviation after clipping outliers; above 0.
        low: Lower end of the training range; at least ``privacy.min_patients`` patients have a value at or below it.
        high: Upper end, defined in the same way.
        edges: Quantiles of the training rows from ``low`` to ``high``, at least two, strictly increasing.
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
            raise ValueError(f"The numeric column {self.name!r} has a setting that is not a finite number.")
        if self.scale <= 0 or self.low >= self.high:
            raise ValueError(f"The numeric column {self.name!r} needs scale above 0 and low below high.")
        if len(self.edges) < 2 or not (np.diff(np.array(self.edges, dtype=np.float32)) > 0).all():
            raise ValueError(f"The edges of the numeric column {self.name!r} must increase; got {self.edges}.")

    @classmethod
    def fit(cls, name: str, cells: Sequence[Any], groups: NDArray[np.int64], min_patients: int) -> NumericColumn:
        """Fit the column to its training cells, ignoring those that are missing or not numbers.

        Raises:
            ValueError: No cell holds a number.
        """
        numbers = np.array([read_number(cell) for cell in cells], dtype=np.float64)
        there = np.isfinite(numbers)
        values, groups = numbers[there], groups[there]
        if not len(values):
            raise ValueError(f"The numeric column {name!r} has no number in the training rows.")
        lower, median, upper = np.quantile(values, [0.25, 0.5, 0.75])
        reach = _CLIPPED * (upper - lower) / 1.349  # the quartiles of a normal distribution, in standard deviations
        drawn_in = np.clip(values, median - reach, median + reach) if reach > 0 else values
        mean, scale = float(drawn_in.mean()), float(drawn_in.std())
        scale = scale if scale > 0 else 1.0
        low, high = _shared_range(values, groups, min_patients) or (mean - 2 * scale, mean + 2 * scale)
        bins = max(1, min(_MOST_BINS, len(values) // _ROWS_A_BIN))
        inner = np.quantile(np.clip(values, low, high), np.linspace(0, 1, bins + 1)[1:-1])
        edges = np.unique(np.array([low, *inner, high], dtype=np.float32)).tolist()
        if len(edges) < 2:  # numbers indistinguishable in float32
            high = low + max(scale, abs(low) * 1e-3)
            edges = [low, high]
        return cls(name, mean, scale, low, high, edges)

    def is_far(self, number: float) -> bool:
        """Whether a number is far outside the training range."""
        reach = FAR * (self.high - self.low)
        return not self.low - reach <= number <= self.high + reach


@dataclass(frozen=True)
class CategoricalColumn:
    """A categorical column.

    Attributes:
        name: Name in the table.
        values: Sorted vocabulary: the training values that enough patients share.
    """

    name: str
    values: list[str]

    def __post_init__(self) -> None:
        if not all(isinstance(value, str) for value in self.values) or self.values != sorted(set(self.values)):
            raise ValueError(f"The values of the categorical column {self.name!r} must be unique, sorted texts.")

    @classmethod
    def fit(cls, name: str, cells: Sequence[Any], groups: NDArray[np.int64], min_patients: int) -> CategoricalColumn:
        """Fit the column, keeping values that at least ``min_patients`` groups share."""
        texts = (cell_text(cell) for cell in cells)
        patients: dict[str, set[int]] = {}
        for text, group in zip(texts, groups.tolist(), strict=True):
            if text is not None:
                patients.setdefault(text, set()).add(group)
        return cls(name, sorted(value for value, who in patients.items() if len(who) >= min_patients))


class EncodedTable(NamedTuple):
    """Encoded rows.

    Attributes:
        numeric_values: (rows, C) float32, NaN for missing cells.
        category_ids: (rows, K) int64, 0 for missing cells, 1 for values not in the vocabulary.
        notices: Counts of values that the model has not learned.
    """

    numeric_values: NDArray[np.float32]
    category_ids: NDArray[np.int64]
    notices: InputNotices

    @property
    def present(self) -> NDArray[np.bool_]:
        """(rows,) whether a row has any value."""
        numbers = ~np.isnan(self.numeric_values)
        found: NDArray[np.bool_] = numbers.any(axis=1) | (self.category_ids != MISSING).any(axis=1)
        return found


@dataclass(frozen=True)
class TableColumns:
    """The columns that a model reads and their encoding.

    The order of columns in a table does not matter. A cell is text or a Python, NumPy or pandas value, and is missing
    if :func:`~mmfusion.text.template.cell_text` returns None. A cell of a numeric column without a finite number also
    counts as missing and is reported.

    Attributes:
        numeric: Numeric columns, ordered by name.
        categorical: Categorical columns, ordered by name.

    Raises:
        ValueError: There are no columns, or two have the same name.
    """

    numeric: list[NumericColumn] = field(default_factory=list)
    categorical: list[CategoricalColumn] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not self.names or len(set(self.names)) < len(self.names):
            raise ValueError(f"A table needs columns with unique names; got {self.names or 'none'}.")

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
        """Fit scales, quantiles and vocabularies to training rows.

        Args:
            cells: Column -> cells of the training rows only: a dict, or a data frame.
            numeric: Names of the numeric columns.
            categorical: Names of the categorical columns.
            groups: Patient of each row; a row without one is its own group.
            min_patients: Minimum number of patients that share a category, or lie beyond an end of the range.

        Raises:
            ValueError: A numeric column has no number.
            KeyError: A column does not exist.
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
        """The keyword ``table_args`` of :func:`mmfusion.create_model` for these columns."""
        return {
            "numeric": len(self.numeric),
            "categories": [len(column.values) for column in self.categorical],
            "bins": [len(column.edges) for column in self.numeric],
        }

    def statistics(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Means (C,), scales (C,) and edges of the numeric columns, for the model's tower."""
        mean = torch.tensor([column.mean for column in self.numeric], dtype=torch.float64)
        scale = torch.tensor([column.scale for column in self.numeric], dtype=torch.float64)
        return mean, scale, [torch.tensor(column.edges, dtype=torch.float64) for column in self.numeric]

    def renamed(self, names: Mapping[str, str]) -> TableColumns:
        """The same columns under other names: old -> new."""
        return TableColumns(
            [replace(column, name=names.get(column.name, column.name)) for column in self.numeric],
            [replace(column, name=names.get(column.name, column.name)) for column in self.categorical],
        )

    def encode(
        self, row: Mapping[str, Any], missing_values: Iterable[str] = ("", "nan")
    ) -> tuple[list[float], list[int]]:
        """Numbers and category ids of one row; absent columns count as missing.

        Args:
            row: Column -> cell.
            missing_values: Lower-case texts that count as missing, compared without case.
        """
        encoded = self.encode_columns({name: [row.get(name)] for name in self.names}, missing_values)
        return encoded.numeric_values[0].tolist(), encoded.category_ids[0].tolist()

    def encode_columns(self, cells: Any, missing_values: Iterable[str] = ("", "nan")) -> EncodedTable:
        """Encode many rows at once.

        Args:
            cells: Column -> cells: a dict, or a data frame. Absent columns count as missing in every row.
            missing_values: As in :meth:`encode`.
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
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TableColumns:
        """Rebuild the columns from the result of :meth:`to_dict`.

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
    """The number in a cell; NaN if missing or not a finite single-precision number.

    ``1_000`` is not a number here, although Python accepts it.
    """
    text = cell_text(cell)
    number = cell_number(text) if text is not None and "_" not in text else None
    return math.nan if number is None or abs(number) > LARGEST else number


def has_decimal_comma(cell: str) -> bool:
    """Whether a cell is a number with a decimal comma."""
    return cell.count(",") == 1 and not math.isnan(read_number(cell.replace(",", ".")))


def _shared_range(
    values: NDArray[np.float64], groups: NDArray[np.int64], min_patients: int
) -> tuple[float, float] | None:
    """The lowest and highest value that enough groups reach; None if there are too few groups."""
    codes = np.unique(groups, return_inverse=True)[1]
    lowest, highest = np.full(codes.max() + 1, np.inf), np.full(codes.max() + 1, -np.inf)
    np.minimum.at(lowest, codes, values)
    np.maximum.at(highest, codes, values)
    if len(lowest) < min_patients:
        return None
    low, high = float(np.sort(lowest)[min_patients - 1]), float(np.sort(highest)[-min_patients])
    return (low, high) if low < high else None
