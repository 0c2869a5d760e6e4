"""Random damage to tables never causes a traceback, and no row is lost or changed without a report."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from mmfusion.cli.main import USER_ERRORS
from mmfusion.data import CaseTable, DatasetConfig, read_cases
from mmfusion.data.split_file import write_split_table
from mmfusion.inference.predictions_csv import prediction_writer
from mmfusion.inference.stream import Prediction

COLUMNS = ("id", "image", "label", "note", "text")
TEXTS = (
    "for 3 weeks",
    "",
    'he said "no", and left',
    "two\nlines, of it",
    "a; b\tc",
    "übel",
    "-5",
    "it's 12\" long",
)
#: unusual contents of a cell.
SIGNS = (
    "\ud800",
    "\0",
    "\x1b[31m",
    "\r",
    "a\rb",
    "\r\n",
    '"',
    '""',
    '"a',
    "=cmd|' /C calc'!A0",
    "@S(1)",
    "\u202e",
    "\ufeff",
)
PATHS = (
    "y" * 300 + "/a.png",
    "../../a.png",
    "/etc/hostname",
    r"\\host\a.png",
    "http://a/b.png",
    "loop",
    ".",
    "..",
    "~",
)
NUMBERS = (
    "9" * 5000,
    "1e999",
    "nan",
    "None",
    "-0",
    "0x10",
    "1_000",
    "NaT",
    10**30,
    -1,
    3.5,
    float("inf"),
    float("nan"),
)
OTHERS = ("z" * 200_000, "a," * 300, "\n" * 50, "{a}", "[b]", r"$\frac{a$", None, True, [1, [2]], {"a": {"b": None}})
STOCK: tuple[Any, ...] = (*SIGNS, *PATHS, *NUMBERS, *OTHERS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    for i in range(4):
        Image.linear_gradient("L").rotate(90 * i).resize((8, 8)).save(folder / f"img_{i}.png")
    with contextlib.suppress(OSError):
        (folder / "loop").symlink_to("loop")
    return folder


def sound_rows(rng: random.Random) -> list[dict[str, Any]]:
    rows = []
    for i in range(rng.randint(3, 12)):
        cells = f"case-{i}", f"img_{i % 4}.png", rng.choice("abc"), str(rng.randint(1, 99)), rng.choice(TEXTS)
        rows.append(dict(zip(COLUMNS, cells, strict=True)))
    return rows


def csv_text(rows: list[dict[str, Any]], delimiter: str) -> list[str]:
    """Header and records of a table as Python's csv writer formats them."""
    records = []
    for row in [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]:
        buffer = io.StringIO()
        cells = ["" if row[name] is None else str(row[name]) for name in COLUMNS]
        csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
        records.append(buffer.getvalue().removesuffix("\r\n") + "\n")
    return records


def json_text(rows: list[dict[str, Any]]) -> list[str]:
    return [json.dumps(row, ensure_ascii=True) + "\n" for row in rows]


def damaged(records: list[bytes], rng: random.Random) -> tuple[bytes, set[int]]:
    """Records with a few changed bytes, and the indices of the changed ones."""
    content = b"".join(records)
    place = rng.randrange(len(content))
    kind = rng.choice(("flip", "insert", "quote", "delete", "cut", "double"))
    length = rng.choice((1, 1, 2, 7)) if kind in ("delete", "double") else 1
    noise = b'"' if kind == "quote" else bytes([rng.choice((rng.randrange(256), ord(rng.choice(',;"\t\r\n\\{}[]'))))])
    if kind == "flip":
        changed = content[:place] + noise + content[place + 1 :]
    elif kind in ("insert", "quote"):
        changed = content[:place] + noise + content[place:]
    elif kind == "delete":
        changed = content[:place] + content[place + length :]
    elif kind == "double":
        changed = content[: place + length] + content[place:]
    else:
        changed = content[:place]
    ends, touched, start = len(content) if kind == "cut" else place + length, set(), 0
    for number, record in enumerate(records):
        if start <= ends and start + len(record) >= place:
            touched.add(number)
        start += len(record)
    return changed, touched


def mutant(path: Path, rng: random.Random) -> tuple[Any, list[dict[str, Any]], set[int], bool]:
    """Create a damaged table: its path, original rows, changed rows, and header."""
    rows = sound_rows(rng)
    kind = rng.choice(("csv bytes", "json bytes", "csv cell", "tsv cell", "json cell", "frame cell", "parquet cell"))
    suffix = {"csv": ".csv", "tsv": ".tsv", "json": ".jsonl", "parquet": ".parquet", "frame": ""}[kind.split()[0]]
    source = path.with_suffix(suffix)
    if kind.endswith("bytes"):
        records = [line.encode() for line in (csv_text(rows, ",") if suffix == ".csv" else json_text(rows))]
        content, touched = damaged(records, rng)
        source.write_bytes(content)
        header = suffix == ".csv"
        return source, rows, {i - header for i in touched}, header and 0 in touched
    place = rng.randrange(len(rows))
    rows[place] = rows[place] | {rng.choice(COLUMNS): rng.choice(STOCK)}
    if suffix in (".csv", ".tsv"):
        lines = csv_text(rows, "," if suffix == ".csv" else "\t")
        source.write_bytes("".join(lines).encode(errors="surrogatepass"))
    elif suffix == ".jsonl":
        source.write_text("".join(json_text(rows)))
    elif kind == "frame cell":
        return pd.DataFrame(rows, columns=COLUMNS, dtype=object), rows, {place}, False
    else:
        arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        cells = {name: [None if row[name] is None else str(row[name]) for row in rows] for name in COLUMNS}
        try:
            parquet.write_table(arrow.table(cells), source)
        except (UnicodeEncodeError, arrow.ArrowException):
            return mutant(path, rng)
    return source, rows, {place}, False


def check(cases: CaseTable, rows: list[dict[str, Any]], touched: set[int]) -> None:
    """Unchanged rows are complete and equal."""
    frame = cases.frame
    read = {row["id"]: row for row in frame.to_dict("records")}
    is_utf8 = not any("is not UTF-8" in note for note in cases.notes)
    for place, row in enumerate(rows):
        if place in touched:
            continue
        found = read.get(row["id"])
        assert found is not None, f"the row {row['id']} is lost"
        for name in COLUMNS:
            wanted = (row[name] or "").strip() or None
            if is_utf8 or wanted is None or wanted.isascii():
                assert found[name] == wanted, f"{row['id']}: {name} is {found[name]!r}, was {wanted!r}"


def written(cases: CaseTable, folder: Path) -> None:
    """Files written by commands can be read back."""
    assert all(len(str(problem)) < 1000 for problem in cases.problems)
    assert cases.fingerprint()
    frame = cases.frame.assign(split="train")
    cases.frame = frame
    write_split_table(cases, folder / "out" / "split.csv")
    ids = [f"row-{row}" if id_ is None else id_ for row, id_ in frame["id"].items()]
    none = Prediction(0, np.full((len(ids), 2), np.nan, dtype=np.float32), ["bad"] * len(ids), [""] * len(ids))
    with prediction_writer(folder / "out" / "p.csv", ["a", "b"]) as write:
        write(ids, none)
    with (folder / "out" / "p.csv").open(encoding="utf-8", newline="") as file:
        assert [line[0] for line in csv.reader(file, strict=True)][1:] == ids
    assert pd.read_csv(folder / "out" / "p.csv", dtype=str, keep_default_na=False)["id"].tolist() == ids


def test_mutants(folder: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    (folder / "out").mkdir(exist_ok=True)
    counts: Counter[str] = Counter()
    slowest = 0.0
    for seed in range(request.config.getoption("--mutants") or 150):
        rng = random.Random(seed)
        source, rows, touched, header = mutant(folder / "cases", rng)
        config = DatasetConfig(image_root=str(folder), id_column="id", split_column=None)
        began = time.process_time()
        try:
            cases = read_cases(source, config, require_labels=rng.random() < 0.5)
            if not header:
                check(cases, rows, touched)
            written(cases, folder)
            counts["read, a problem told" if cases.problems else "read"] += 1
        except AssertionError as error:
            raise AssertionError(f"mutant {seed}: {error}") from error
        except USER_ERRORS as error:
            assert header or len(rows) == len(touched), f"mutant {seed}: all rows are refused for one: {error}"
            assert len(str(error)) < 2000 and "\n" not in str(error), f"mutant {seed}"
            counts["refused in one line"] += 1
        slowest = max(slowest, time.process_time() - began)
    assert slowest < 10
    print(dict(counts), f"slowest {slowest:.2f} s")
