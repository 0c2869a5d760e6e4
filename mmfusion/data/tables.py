"""Tables as they stand in their files: the cells of CSV, TSV, JSON-lines and Parquet."""

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")

#: Spreadsheets look like tables, and are refused rather than overlooked.
SHEET_SUFFIXES = (".xlsx", ".xls", ".ods")


@dataclass
class RawTable:
    """A table before anything is made of its cells.

    Attributes:
        source: Its name in messages.
        columns: Name -> one cell per row: text, or whatever type Parquet and JSON have.
        broken: Row (1-based) -> why its line could not be read.
        format: How it was found: ``table``, ``report``, ``imagefolder``, ``folder`` or ``memory``.
        skipped: Rows of the file before the first one here, where a file is read in parts.
    """

    source: str
    columns: dict[str, list[Any]]
    broken: dict[int, str] = field(default_factory=dict)
    format: str = "table"
    skipped: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path) -> RawTable:
    """Read one CSV, TSV, JSON-lines or Parquet file. A line that cannot be read is a broken row, never a lost one.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not a table, no rows, a column name twice, or a file damaged as a whole.
    """
    return next(read_parts(path))


def read_parts(path: Path, rows: int | None = None) -> Iterator[RawTable]:
    """Read a table so many rows at a time, in bounded memory; None reads all at once, and so are JSON lines.

    Raises:
        FileNotFoundError: No such file.
        ValueError: As for :func:`read_table`; of damage further down, when that part is reached.
    """
    if not path.is_file():
        raise FileNotFoundError(f"The table {path} does not exist.")
    suffix = path.suffix.lower()
    if suffix not in TABLE_SUFFIXES:
        raise ValueError(f"{path} is not a table; tables end in {', '.join(TABLE_SUFFIXES)}.")
    empty = True
    try:
        for part in {".parquet": _read_parquet, ".jsonl": _read_json_lines}.get(suffix, _read_csv)(path, rows):
            if len(part):
                empty = False
                yield part
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8.") from error
    if empty:
        raise ValueError(f"{path} has no rows.")


def _read_csv(path: Path, rows: int | None) -> Iterator[RawTable]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.reader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            header = [name.strip() for name in next(lines, [])]
            if repeated := {name for name in header if name and header.count(name) > 1}:
                raise ValueError(f"{path} has the column {', '.join(map(repr, sorted(repeated)))} more than once.")
            raw = RawTable(path.name, {name: [] for name in header if name})
            for row, line in enumerate(filter(None, lines), start=1):
                if rows is not None and row - raw.skipped > rows:
                    yield raw
                    raw = RawTable(path.name, {name: [] for name in raw.columns}, skipped=row - 1)
                if len(line) != len(header):
                    raw.broken[row] = f"the line has {len(line)} cells and the header {len(header)}"
                for name, cell in zip(header, [*line, *[""] * (len(header) - len(line))], strict=False):
                    if name:
                        raw.columns[name].append(cell)
        except csv.Error as error:
            raise ValueError(f"{path}, line {lines.line_num}: {error}; is a quote left open?") from error
    yield raw


def _read_json_lines(path: Path, _: int | None) -> Iterator[RawTable]:
    rows: list[dict[str, Any]] = []
    broken: dict[int, str] = {}
    with path.open(encoding="utf-8-sig") as file:
        for line in filter(str.strip, file):
            try:
                value = json.loads(line)
            except json.JSONDecodeError as error:
                value, broken[len(rows) + 1] = {}, f"the line is not JSON: {error.msg}"
            if not isinstance(value, dict):
                value, broken[len(rows) + 1] = {}, f"the line is a JSON {type(value).__name__}, not an object"
            rows.append(value)
    names = dict.fromkeys(name for row in rows for name in row)
    yield RawTable(path.name, {name: [row.get(name) for row in rows] for name in names}, broken)


def _read_parquet(path: Path, rows: int | None) -> Iterator[RawTable]:
    import pyarrow
    import pyarrow.parquet

    skipped = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            # a batch ends with its row group, however large it may be
            for table in [file.read()] if rows is None else file.iter_batches(rows):
                # pandas writes its index as a column of this kind of name.
                names = [name for name in table.schema.names if not name.startswith("__index_level_")]
                yield RawTable(path.name, {name: table[name].to_pylist() for name in names}, skipped=skipped)
                skipped += len(table)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be read as Parquet: {reason}") from error
