"""A damaged row is a problem of that row only: it affects no other row and stops no command."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from mmfusion.data import DatasetConfig, check_images, read_cases
from mmfusion.data.problems import BadRowsError, ProblemKind
from mmfusion.data.tables import read_table

LAST = "c.png,y,fine"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, name in enumerate("abc"):
        Image.linear_gradient("L").rotate(90 * i).save(tmp_path / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("lines", "texts", "broken"),
    [
        (['a.png,x,"He said', "b.png,y,good", LAST], ["He said", "good", "fine"], [1]),
        (['a.png,x,"He said', "b.png,y,good", 'c.png,y,"fine"'], ["He said", "good", "fine"], [1]),
        (['a.png,x,"He said', "b.png,y,good", 'c.png,y,5"'], ["He said", "good", '5"'], [1]),
        (['a.png,"x,t', 'b.png,y,good"', LAST], ["t", 'good"', "fine"], [1]),
        (['"a.png,x,t', "b.png,y,good", LAST], ["t", "good", "fine"], [1]),
        (['a.png,x,"t" u', "b.png,y,good", LAST], ['t" u', "good", "fine"], [1]),
        (["a.png,x,'two", "b.png,y,good", LAST], ["'two", "good", "fine"], []),
        (['a.png,x,12" long', "b.png,y,good", LAST], ['12" long', "good", "fine"], []),
        ([f"a.png,x,{'z' * 200_000}", "b.png,y,good", LAST], ["z" * 200_000, "good", "fine"], []),
    ],
    ids=["end", "strict", "closed", "middle", "first", "within", "cell", "inch", "long"],
)  # fmt: skip
def test_an_open_quote_takes_no_other_row(folder: Path, lines: list[str], texts: list[str], broken: list[int]) -> None:
    (folder / "cases.csv").write_text("\n".join(["image,label,text", *lines]) + "\n")
    table = read_table(folder / "cases.csv")
    assert table.columns["text"] == texts and list(table.broken) == broken
    cases = read_cases(folder)
    assert [problem.row for problem in cases.problems if problem.kind is ProblemKind.BROKEN_LINE] == broken


def test_a_quoted_cell_may_have_lines(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text('image,text\na.png,"two\nlines, one ""cell"" of them"\nb.png,"\n\n1,2"\n')
    table = read_table(path)
    assert table.columns["text"] == ['two\nlines, one "cell" of them', "\n\n1,2"] and not table.broken


def test_a_text_at_the_beginning_may_be_left_open_too(tmp_path: Path) -> None:
    path = tmp_path / "cases.csv"
    path.write_text('text,image,label\ngood,z.png,x\n"He said,a.png,x\ngood,b.png,y\n5",c.png,y\n')
    table = read_table(path)
    assert table.columns["image"] == ["z.png", "a.png", "b.png", "c.png"] and list(table.broken) == [2]


ODD = {
    "surrogate": '{"image": "a.png", "label": "x", "note": "\\ud800"}',
    "digits": '{"image": "a.png", "label": "x", "note": ' + "9" * 5000 + "}",
    "nested": '{"image": "a.png", "label": "x", "note": ' + "[" * 100_000 + "}",
    "long name": json.dumps({"image": "y" * 300 + "/a.png", "label": "x"}),
    "zero": '{"image": "a.png", "label": "x", "note": "\\u0000"}',
    "zero in a path": '{"image": "a\\u0000.png", "label": "x"}',
}


@pytest.mark.parametrize("line", ODD.values(), ids=ODD)
def test_an_odd_line_is_a_problem_of_its_row(folder: Path, line: str) -> None:
    sound = [json.dumps({"image": f"{name}.png", "label": "y"}) for name in "bc"]
    (folder / "cases.jsonl").write_text("\n".join([line, *sound]) + "\n")
    cases = check_images(read_cases(folder), progress=False)
    assert {problem.row for problem in cases.problems} == {1} and len(cases) == 3
    assert all(len(str(problem)) < 400 for problem in cases.problems)
    assert cases.fingerprint()


def test_a_link_to_itself_is_no_folder(folder: Path) -> None:
    try:
        os.symlink("loop", folder / "loop")
    except OSError:
        pytest.skip("no links here")
    (folder / "cases.csv").write_text("image,label\na.png,x\nb.png,y\nloop,y\n")
    cases = check_images(read_cases(folder), progress=False)
    assert {problem.row for problem in cases.problems} == {3}


@pytest.mark.parametrize("name", ["cases.parquet", "train-00000-of-00001.parquet"])
def test_dates_beyond_the_calendar_are_problems_of_their_rows(folder: Path, name: str) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    dates = arrow.array([2**53, 0, None], arrow.int64()).cast(arrow.timestamp("ms"))
    table = arrow.table({"image": ["a.png", "b.png", "c.png"], "label": ["x", "y", "y"], "seen": dates})
    parquet.write_table(table, folder / name)
    cases = read_cases(folder)
    assert [problem.row for problem in cases.problems] == [1]
    assert cases.frame["seen"].tolist() == [None, str(datetime(1970, 1, 1)), None]


def test_a_table_in_memory_is_read_with_the_same_care(folder: Path) -> None:
    frame = pd.DataFrame({"image": ["a.png", "b.png", "c.png"], "label": ["x", "y", "y"]})
    frame["note"] = ["\udcff", 10**5000, "good"]
    kept = frame.copy(deep=True)
    cases = read_cases(frame, DatasetConfig(image_root=str(folder)))
    assert [problem.row for problem in cases.problems] == [1, 2]
    assert frame["note"].tolist() == kept["note"].tolist()


def test_twenty_thousand_columns_are_read_in_a_moment(tmp_path: Path) -> None:
    """Linear time in the number of columns."""
    names = [f"gene_{i:05d}" for i in range(20_000)]
    (tmp_path / "cases.csv").write_text(f"image,label,{','.join(names)}\na.png,x,{','.join('1' for _ in names)}\n")
    assert len(read_table(tmp_path / "cases.csv").columns) == 20_002
    with pytest.raises(ValueError, match="'image', 'label' more than once"):
        (tmp_path / "twice.csv").write_text("image,label,image,label\na,b,c,d\n")
        read_table(tmp_path / "twice.csv")


def test_messages_are_clipped(folder: Path) -> None:
    (folder / "cases.csv").write_text(f"image,label\na.png,x\nb.png,y\n{'z' * 9000}.png,y\n")
    with pytest.raises(BadRowsError) as caught:
        read_cases(folder).resolve("fail")
    assert max(map(len, str(caught.value).splitlines())) < 400 and "9,006 characters" in str(caught.value)
