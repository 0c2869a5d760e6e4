"""Reading step: the files of a data set, in any supported format, as one table of raw cells."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmfusion.data.class_folders import SPLIT_NAMES, folder_labels, with_patients
from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import MemoryTable
from mmfusion.data.presets import preset_of
from mmfusion.data.reading import Reading
from mmfusion.data.tables import SHEET_SUFFIXES, TABLE_SUFFIXES, RawTable, read_table
from mmfusion.data.walking import walk
from mmfusion.images.kinds import IMAGE_SUFFIXES, image_stem, is_image_file

#: Format name of tables in memory.
MEMORY = "memory"
#: Table in parts, as in the ``datasets`` library and repositories of the Hub.
_SHARD = re.compile(r"(?P<split>.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?\.parquet")
_FOLDER_TABLES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")


def read_files(reading: Reading) -> Reading:
    """Read the files of ``reading.path``: a folder, a table (a file, or one in memory), or one image.

    Relative paths in a table in memory are relative to the working directory.

    Raises:
        FileNotFoundError: The path, or a file required by the format, does not exist.
        ValueError: A file cannot be read.
    """
    root, config = reading.path, reading.config
    if isinstance(root, MemoryTable):
        if config.format not in ("auto", "table"):
            raise ValueError(f"dataset.format {config.format!r} does not apply to a table in memory.")
        return replace(reading, raw=RawTable(str(root), dict(root.columns), format=MEMORY), folder=Path.cwd())
    if not root.exists():
        raise FileNotFoundError(f"The data set {root} does not exist.")
    if root.is_file():
        image = RawTable(root.name, {config.image_column or "image": [root.name]}, format="folder")
        raw = image if is_image_file(root) else read_table(root)
        return replace(reading, raw=raw, folder=root.parent)
    name = config.format if config.format != "auto" else _detect(root, config, has_labels=reading.require_labels)
    return replace(reading, raw=replace(_READERS[name](root, config), format=name), folder=root)


def only_table(reading: Reading) -> Path | None:
    """The single file that holds all rows; None for the other formats.

    Raises:
        FileNotFoundError: As for :func:`read_files`, like ValueError.
    """
    root, config = reading.path, reading.config
    if isinstance(root, MemoryTable):
        return None
    if root.is_file():
        return None if is_image_file(root) else root
    if not root.is_dir() or config.format not in ("auto", "table"):
        return None
    name = config.format if config.format == "table" else _detect(root, config, has_labels=reading.require_labels)
    return _table_below(root, config) if name == "table" else None


def folder_of(reading: Reading, table: Path) -> Path:
    """The folder of a data set read from one table: the path itself, or the parent of the file."""
    return table.parent if reading.path == table else Path(reading.path)


def _detect(root: Path, config: DatasetConfig, has_labels: bool) -> str:
    if config.table is not None:
        return "table"
    if (root / "image.csv").is_file() and (root / "response.json").is_file():
        return "report"
    if any("file_name" in read_table(path).columns for path in _folder_tables(root)):
        return "imagefolder"
    if _shards(root):
        return "shards"
    if _files_in(root, (*TABLE_SUFFIXES, *SHEET_SUFFIXES)):
        return "table"
    below = walk(root, follow_links=config.follow_links)
    images: list[str | None] = [*below.images]
    if not images:
        notes = "; ".join(below.notes())
        raise FileNotFoundError(
            f"{root} has no table ({', '.join((*TABLE_SUFFIXES, *SHEET_SUFFIXES))}) and no images"
            f"{f': {notes}' if notes else ''}."
        )
    return "imagefolder" if has_labels and None not in folder_labels(images) else "folder"


def find_split_table(name: str, folder: Path) -> Path:
    """Path of ``dataset.split_table``, relative to the working directory (where commands write it) or to the data.

    Raises:
        FileNotFoundError: It is in neither place.
    """
    here = Path(name).expanduser()
    path = here if here.is_file() else folder / here
    if not path.is_file():
        where = f"neither in the working directory nor in {folder}"
        raise FileNotFoundError(f"The split table {here} (dataset.split_table) is {where}.")
    return path


def has_table(path: Path | MemoryTable) -> bool:
    """Whether the data are more than images: the path is a table or has one (imagefolder: one level below)."""
    if isinstance(path, MemoryTable):
        return True
    files = [path] if path.is_file() else [*path.glob("*"), *path.glob("*/metadata.*"), *path.glob("data/*.parquet")]
    return any(file.suffix.lower() in (*TABLE_SUFFIXES, *SHEET_SUFFIXES) for file in files) or not path.exists()


def _files_in(root: Path, suffixes: Sequence[str]) -> list[Path]:
    return sorted(path for path in root.iterdir() if path.is_file() and path.suffix.lower() in suffixes)


def _folder_tables(root: Path) -> list[Path]:
    """Metadata files of the imagefolder layout, beside the images of the root or of each split."""
    folders = [root, *sorted(path for path in root.iterdir() if path.is_dir() and path.name.lower() in SPLIT_NAMES)]
    return [folder / name for folder in folders for name in _FOLDER_TABLES if (folder / name).is_file()]


def _read_only_table(root: Path, config: DatasetConfig) -> RawTable:
    return read_table(_table_below(root, config))


def _table_below(root: Path, config: DatasetConfig) -> Path:
    tables = _files_in(root, TABLE_SUFFIXES) or _files_in(root, SHEET_SUFFIXES)
    names = ", ".join(path.name for path in tables)
    if config.table is None:
        if len(tables) != 1:
            found = f"{len(tables)} tables ({names})" if tables else "no table"
            preset = preset_of({path.name for path in tables})
            known = f", or use the published layout with dataset.preset {preset}" if preset else ""
            raise ValueError(f"{root} has {found}; select one with dataset.table{known}.")
        return tables[0]
    # an archive may have been unpacked into its own folder
    path, below = root / config.table, sorted(root.glob(f"*/{config.table}"))
    places = [place for place in ([path] if path.is_file() else below) if place.is_file()]
    if not places:
        raise FileNotFoundError(f"The table {path} does not exist; the folder has {names or 'none'}.")
    if len(places) > 1:
        several = " and ".join(place.relative_to(root).as_posix() for place in places[:2])
        raise ValueError(f"{root} has {several}; select one with dataset.table.")
    return places[0]


def _read_report(root: Path, config: DatasetConfig) -> RawTable:
    for name in ("image.csv", "response.json"):
        if not (root / name).is_file():
            raise FileNotFoundError(f"The report format needs {root / name}, which does not exist.")
    raw = read_table(root / "image.csv")
    try:
        texts = json.loads((root / "response.json").read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{root / 'response.json'} cannot be read: {error}.") from error
    if not isinstance(texts, dict):
        raise ValueError(f"{root / 'response.json'} must map image ids to texts, but is a {type(texts).__name__}.")
    ids = raw.columns[image_column(raw, config) or next(iter(raw.columns))]
    by_stem = {image_stem(key): value for key, value in texts.items()}
    column: list[Any] = []
    for row, value in enumerate(ids, start=1):
        text = texts.get(value, by_stem.get(image_stem(str(value))))
        if not isinstance(text, str | None):
            raw.broken.setdefault(row, f"response.json holds a {type(text).__name__} where a text is expected")
        column.append(text if isinstance(text, str) else None)
    raw.columns[config.text_column or "text"] = column
    return raw


def _read_imagefolder(root: Path, config: DatasetConfig) -> RawTable:
    tables = [root / config.table] if config.table else _folder_tables(root)
    if not tables:
        below = walk(root, follow_links=config.follow_links)
        columns: dict[str, list[Any]] = {"file_name": below.images}
        told = with_patients(columns, config.label_column, config.group_column)
        return RawTable(str(root), columns, notes=[*below.notes(), *told])
    names = ", ".join(path.relative_to(root).as_posix() for path in tables)
    parts = [(path.parent.relative_to(root).as_posix(), read_table(path)) for path in tables]
    return _as_one(names, parts, config)


def _as_one(source: str, parts: Sequence[tuple[str, RawTable]], config: DatasetConfig) -> RawTable:
    """Concatenate tables, each with the folder that its images are relative to (``.``: the common one)."""
    joined = RawTable(source, {name: [] for _, raw in parts for name in raw.columns})
    for folder, raw in parts:
        start, column = len(joined), image_column(raw, config)
        for name, cells in joined.columns.items():
            values = raw.columns.get(name, [None] * len(raw))
            if name == column and folder != ".":
                values = [f"{folder}/{value}" if value else value for value in values]
            cells.extend(values)
        joined.notes += raw.notes
        joined.broken.update({start + row: why for row, why in raw.broken.items()})
    return joined


def _shards(root: Path) -> list[tuple[Path, str]]:
    """Parts of a table, in the folder or in ``data``, and the split in each name."""
    for folder in (root, root / "data"):
        paths = sorted(folder.glob("*.parquet"))
        if found := [(path, named["split"]) for path in paths if (named := _SHARD.fullmatch(path.name))]:
            return found
    return []


def _read_shards(root: Path, config: DatasetConfig) -> RawTable:
    """Read the parts of one table, with a split column if there are several splits and the table has none."""
    parts = [(path, split, read_table(path)) for path, split in _shards(root)]
    if not parts:
        raise FileNotFoundError(f"{root} has no parts of a table, such as data/train-00000-of-00001.parquet.")
    joined = _as_one(str(root), [(raw.image_root.name if raw.image_root else ".", raw) for *_, raw in parts], config)
    roots = [raw.image_root for *_, raw in parts if raw.image_root is not None]
    joined.image_root = roots[0].parent if roots else None
    counts: Counter[str] = Counter()
    for _, split, raw in parts:
        counts[split] += len(raw)
    own = config.split_column or "split"
    if len(counts) > 1 and config.split_column and own not in joined.columns:
        joined.columns[own] = [split for _, split, raw in parts for _ in range(len(raw))]
    told = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    joined.notes.append(f"{len(parts)} Parquet files read as one table: {told} rows")
    return joined


def _read_folder(root: Path, config: DatasetConfig) -> RawTable:
    places = config.image_roots or ["."]
    base = root / (places[0] if len(places) == 1 else ".")
    found = [(place, walk(root / place, follow_links=config.follow_links)) for place in places]
    prefix = "" if len(places) == 1 else "/"
    images = [f"{place}{prefix}{name}" if prefix else name for place, each in found for name in each.images]
    notes = [note for _, each in found for note in each.notes()]
    if images:
        return RawTable(str(base), {config.image_column or "image": images}, notes=notes)
    told = "; ".join(notes)
    raise FileNotFoundError(f"{base} has no images ({', '.join(IMAGE_SUFFIXES)}){f': {told}' if told else ''}.")


_READERS = {
    "table": _read_only_table,
    "shards": _read_shards,
    "report": _read_report,
    "imagefolder": _read_imagefolder,
    "folder": _read_folder,
}


def image_column(raw: RawTable, config: DatasetConfig) -> str | None:
    """The column with the image path or id, or None."""
    wanted = (config.image_column,) if config.image_column else ("image", "image_id", "file_name")
    return next((name for name in wanted if name in raw.columns), None)


def file_name(id_: str, taken: set[str]) -> str:
    """A file name for a row: its id without the image suffix, distinct from those taken."""
    plain = re.sub(r"[^\w.-]+", "-", image_stem(id_)).strip(".-") or "row"
    names = itertools.chain([plain], (f"{plain}-{number}" for number in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name
