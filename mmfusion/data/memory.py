"""Data sets in memory: pandas or pyarrow tables wherever the path of a data set is accepted. Imports no library."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    #: a data set: a path, or a table in memory.
    DataSource: TypeAlias = "str | os.PathLike[str] | pd.DataFrame | pa.Table"
else:
    DataSource: TypeAlias = Any


class MemoryTable(str):
    """A table in memory, usable wherever a configuration has the path of a data set.

    As text it reads ``table in memory, 426 rows`` in messages and saved configurations. It is immutable, so copies
    of a configuration share it.

    Attributes:
        columns: Name -> one cell per row.
    """

    columns: Mapping[str, list[Any]]

    @classmethod
    def of(cls, frame: Any) -> MemoryTable:
        """Read the cells of a pandas DataFrame or a pyarrow Table. An index is not a column.

        Raises:
            TypeError: Neither of the two.
            ValueError: There are no rows, or a column name occurs twice.
        """
        if not is_frame(frame):
            raise TypeError(f"A data set is a path, a pandas DataFrame or a pyarrow Table, not {type(frame).__name__}.")
        names = [str(name) for name in getattr(frame, "column_names", frame.columns)]
        if repeated := sorted(name for name, times in Counter(names).items() if times > 1):
            raise ValueError(f"The table has the column {', '.join(map(repr, repeated))} more than once.")
        if not len(frame):
            raise ValueError("The table has no rows.")
        columns = [_cells(frame, position) for position in range(len(names))]
        table = cls(f"table in memory, {len(frame):,} rows")
        table.columns = dict(zip(names, columns, strict=True))
        return table

    def rows(self) -> list[dict[str, Any]]:
        """The rows as dicts, with missing cells (NaN, NaT, NA) as None."""
        names = list(self.columns)
        cells = [[None if _is_missing(cell) else cell for cell in column] for column in self.columns.values()]
        return [dict(zip(names, row, strict=True)) for row in zip(*cells, strict=True)]

    def __deepcopy__(self, memo: Any) -> MemoryTable:
        return self


def is_frame(value: Any) -> bool:
    """Whether a value is a pandas DataFrame or a pyarrow Table, without importing either."""
    homes = {(cls.__module__.partition(".")[0], cls.__name__) for cls in type(value).__mro__}
    return bool(homes & {("pandas", "DataFrame"), ("pyarrow", "Table")})


def data_set(source: DataSource) -> Path | MemoryTable:
    """The path of a data set, or the table in memory used instead.

    Raises:
        TypeError: Neither of the two.
        ValueError: As :meth:`MemoryTable.of`.
    """
    if isinstance(source, MemoryTable):
        return source
    return Path(source) if isinstance(source, str | os.PathLike) else MemoryTable.of(source)


def as_setting(source: DataSource) -> str:
    """The same as a setting, which is a string in both cases."""
    if isinstance(source, str):
        return source
    return os.fspath(source) if isinstance(source, os.PathLike) else MemoryTable.of(source)


def _cells(frame: Any, position: int) -> list[Any]:
    """The cells of one column as Python values."""
    if hasattr(frame, "column_names"):
        cells: list[Any] = frame.column(position).to_pylist()
    else:
        cells = frame.iloc[:, position].astype(object).tolist()
    return cells


def _is_missing(cell: Any) -> bool:
    return (isinstance(cell, float) and cell != cell) or type(cell).__name__ in ("NaTType", "NAType")
