"""Raw tables: the cells of CSV, TSV, JSON-lines, Parquet and spreadsheet files."""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmfusion.data.embedded import EmbeddedImages, class_names
from mmfusion.data.records import Records
from mmfusion.data.sniffing import encoding_of, sniff
from mmfusion.names import clip, one_line

#: Spreadsheets, used if a folder has no other table.
SHEET_SUFFIXES = (".xlsx", ".xls", ".ods")
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@dataclass
class RawTable:
    """A table before its cells are interpreted.

    Attributes:
        source: Name in messages.
        columns: Name -> one cell per row: text, or any type of Parquet and JSON.
        broken: Row (1-based) -> why it could not be read.
        format: Detected format: ``table``, ``shards``, ``report``, ``imagefolder``, ``folder`` or ``memory``.
        skipped: Number of file rows before the first one here, if a file is read in parts.
        notes: Log lines about how the files were read.
        image_root: Folder of images stored in the table itself, or None.
    """

    source: str
    columns: dict[str, list[Any]]
    broken: dict[int, str] = field(default_factory=dict)
    format: str = "table"
    skipped: int = 0
    notes: list[str] = field(default_factory=list)
    image_root: Path | None = None

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), []))


def read_table(path: Path) -> RawTable:
    """Read one CSV, TSV, JSON-lines or Parquet file, or a spreadsheet.

    A line that cannot be read becomes a broken row, so no row is lost.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: Not a table, no rows, a duplicate column name, or a damaged file.
    """
    return next(read_parts(path))


def read_parts(path: Path, rows: int | None = None) -> Iterator[RawTable]:
    """Read a table in parts of ``rows`` rows, in bounded memory; None, JSON lines and spreadsheets are read at once.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: As in :func:`read_table`; later damage is raised when that part is reached.
    """
    if not path.is_file():
        raise FileNotFoundError(f"The table {path} does not exist.")
    suffix = path.suffix.lower()
    if suffix not in (*TABLE_SUFFIXES, *SHEET_SUFFIXES):
        raise ValueError(f"{path} is not a table; supported suffixes: {', '.join((*TABLE_SUFFIXES, *SHEET_SUFFIXES))}.")
    readers = {".parquet": _read_parquet, ".jsonl": _read_json_lines} | dict.fromkeys(SHEET_SUFFIXES, _read_sheet)
    empty = True
    for part in readers.get(suffix, _read_csv)(path, rows):
        if len(part):
            empty = False
            yield part
    if empty:
        raise ValueError(f"{path} has no rows.")


def _read_csv(path: Path, rows: int | None) -> Iterator[RawTable]:
    encoding, delimiter, notes = sniff(path)
    with path.open(encoding=encoding, newline="") as file:
        yield from _from_lines(path, Records(file, delimiter), rows, notes)


def _read_sheet(path: Path, _: int | None) -> Iterator[RawTable]:
    """Read the first sheet of a workbook."""
    try:
        import python_calamine as calamine
    except ImportError:
        raise ImportError(
            f'{path} is a spreadsheet; pip install "mmfusion[excel]" to read it, or save it as CSV.'
        ) from None
    try:
        with calamine.CalamineWorkbook.from_path(str(path)) as book:
            names, rows = book.sheet_names, book.get_sheet_by_index(0).to_python(skip_empty_area=True)
    except calamine.CalamineError as error:
        raise ValueError(f"{path} cannot be read as a spreadsheet: {error}") from error
    told = f"{path.name} has {len(names)} sheets ({', '.join(names)}); the first is read"
    filled = (row for row in rows if any(cell != "" for cell in row))
    yield from _from_lines(path, ((row, None) for row in filled), None, [told] if len(names) > 1 else [])


def _from_lines(
    path: Path, lines: Iterator[tuple[Sequence[Any], str | None]], rows: int | None, notes: list[str]
) -> Iterator[RawTable]:
    """Make a table of lines of cells, each with its error or None; the first is the header."""
    first, broken = next(lines, ([], None))
    header = [str(name).strip() for name in first]
    if broken is not None:
        raise ValueError(f"{path}: the header cannot be read: {broken}.")
    if repeated := repeated_names(header):
        raise ValueError(f"{path} has the column {clip(', '.join(map(repr, repeated)))} more than once.")
    raw = RawTable(path.name, {name: [] for name in header if name}, notes=notes)
    for row, (line, why) in enumerate((each for each in lines if each[0]), start=1):
        if rows is not None and row - raw.skipped > rows:
            yield raw
            raw = RawTable(path.name, {name: [] for name in raw.columns}, skipped=row - 1)
        if why is not None:
            raw.broken[row] = why
        elif len(line) != len(header):
            raw.broken[row] = f"the line has {len(line)} cells, but the header {len(header)}"
        for name, cell in zip(header, [*line, *[""] * (len(header) - len(line))], strict=False):
            if name:
                raw.columns[name].append(cell)
    yield raw


def _read_json_lines(path: Path, _: int | None) -> Iterator[RawTable]:
    rows: list[dict[str, Any]] = []
    broken: dict[int, str] = {}
    encoding = encoding_of(path)
    notes = [f"{path.name} is not UTF-8; read as {encoding}"] if not encoding.startswith("utf-8") else []
    with path.open(encoding=encoding) as file:
        for line in filter(str.strip, file):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError) as error:  # too many digits, or nested too deeply
                value, broken[len(rows) + 1] = {}, f"the line is not JSON: {getattr(error, 'msg', error)}"
            if not isinstance(value, dict):
                value, broken[len(rows) + 1] = {}, f"the line is a JSON {type(value).__name__}, not an object"
            rows.append(value)
    names = dict.fromkeys(name for row in rows for name in row)
    yield RawTable(path.name, {name: [row.get(name) for row in rows] for name in names}, broken, notes=notes)


def _read_parquet(path: Path, rows: int | None) -> Iterator[RawTable]:
    import pyarrow
    import pyarrow.parquet

    skipped = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            # pandas names its index column like this
            names = [name for name in file.schema_arrow.names if not name.startswith("__index_level_")]
            embedded, classes = EmbeddedImages(path, file.schema_arrow), class_names(file.schema_arrow)
            raw = RawTable(path.name, {name: [] for name in names}, image_root=embedded.root)
            # a batch ends at the end of its row group, however large that is
            for table in file.iter_batches(rows or 4096, columns=names):
                lists = {name: _plain_cells(table[name], name, skipped, raw.broken) for name in names}
                cells = {name: embedded.unpacked(name, values, skipped) for name, values in lists.items()}
                for name in classes.keys() & cells.keys():
                    cells[name] = [classes[name].get(cell) for cell in cells[name]]
                for name in names:
                    raw.columns[name] += cells[name]
                skipped += len(table)
                if rows is not None:
                    yield raw
                    raw = RawTable(path.name, {name: [] for name in names}, skipped=skipped, image_root=embedded.root)
            yield raw
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {one_line(error)}") from error


def _plain_cells(column: Any, name: str, before: int, broken: dict[int, str]) -> list[Any]:
    """Cells of a pyarrow column; a value that Python cannot represent, such as a date, breaks its row."""
    try:
        cells: list[Any] = column.to_pylist()
        return cells
    except (ValueError, OverflowError):
        cells = []
    for row, cell in enumerate(column, start=before + 1):
        try:
            cells.append(cell.as_py())
        except (ValueError, OverflowError) as error:
            cells.append(None)
            broken.setdefault(row, f"the column {name!r} has a value that cannot be read: {one_line(error)}")
    return cells


def repeated_names(names: Sequence[str]) -> list[str]:
    """Non-empty names that occur more than once."""
    return sorted(name for name, times in Counter(names).items() if name and times > 1)
