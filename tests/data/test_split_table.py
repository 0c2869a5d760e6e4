"""A split in a file: written, read back, and refused after the rows changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from mmfusion.data import CaseTable, DatasetConfig, read_cases
from mmfusion.data.config import SplitConfig
from mmfusion.data.problems import BadRowsError
from mmfusion.data.split_file import write_split_table
from mmfusion.data.split_table import split

CONFIG = DatasetConfig(group_column="patient")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """40 rows of 20 patients; the table's own split puts every row into training."""
    (tmp_path / "images").mkdir()
    lines = ["image,label,patient,age,split"]
    for i in range(40):
        Image.new("L", (8, 8), i).save(tmp_path / "images" / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i // 2 % 2]},p{i // 2},{20 + i},train")
    (tmp_path / "cases.csv").write_text("\n".join(lines) + "\n")
    return tmp_path


def change(root: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], table: str = "cases.csv") -> None:
    edit(pd.read_csv(root / table, dtype=str)).to_csv(root / table, index=False)


def read(root: Path, **options: object) -> CaseTable:
    return read_cases(root, replace(CONFIG, table="cases.csv", split_table="split.csv", **options))  # type: ignore[arg-type]


def draw(root: Path, output: Path, dataset: DatasetConfig, **options: int) -> CaseTable:
    return split(SplitConfig(str(root), str(output), dataset=dataset, **options)).cases


def test_the_file_is_the_split_that_a_run_draws(root: Path) -> None:
    drawn = draw(root, root / "split.csv", CONFIG, seed=3)
    table = pd.read_csv(root / "split.csv", dtype=str)
    assert list(table.columns) == ["id", "split", "fingerprint"] and len(table) == 40
    run = read_cases(root, replace(CONFIG, table="cases.csv", split_column=None)).split_or_draw(CONFIG, seed=3)
    assert run.splits == {"train": 28, "val": 6, "test": 6}
    for cases in (drawn, read(root)):
        assert cases.problems == []
        pd.testing.assert_series_equal(cases.frame["split"], run.frame["split"])
    assert table["split"].tolist() == run.frame["split"].tolist()


def test_what_a_run_writes_is_read_back(root: Path) -> None:
    """``split.csv`` of a run folder has the same form."""
    draw(root, root / "drawn.csv", CONFIG)
    cases = read_cases(root, replace(CONFIG, table="cases.csv", split_table="drawn.csv"))
    write_split_table(cases, root / "split.csv")
    assert (root / "split.csv").read_bytes() == (root / "drawn.csv").read_bytes()


def test_folds(root: Path) -> None:
    cases = draw(root, root / "split.csv", CONFIG, folds=5, seed=1)
    assert cases.frame.groupby("fold").size().tolist() == [8] * 5
    rotated = read(root, fold_column="fold", folds={"test": [0], "val": [1]})
    assert rotated.problems == []
    expected = cases.frame["fold"].map({0: "test", 1: "val"}).fillna("train")
    assert rotated.frame["split"].tolist() == expected.tolist()
    with pytest.raises(ValueError, match=r"no column 'split'; it has id, fold, fingerprint; set dataset\.fold_column"):
        read(root)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.assign(label=["b", *t["label"][1:]]), "1 of 40 rows have another label or group (the first: '0.p"),
        (lambda t: t.assign(patient="p"), "40 of 40 rows have another label or group"),
        (lambda t: t.iloc[3:], "3 rows are missing (the first: '0.png')"),
    ],
)
def test_changed_rows_are_refused_in_one_line(root: Path, edit: Callable, words: str) -> None:
    draw(root, root / "split.csv", CONFIG)
    change(root, edit)
    with pytest.raises(ValueError) as refused:
        read(root, on_bad_row="skip")
    assert words in str(refused.value) and "\n" not in str(refused.value)


def test_text_and_metadata_may_change(root: Path) -> None:
    draw(root, root / "split.csv", CONFIG)
    change(root, lambda table: table.assign(age="7", text="new"))
    assert read(root).problems == []


def test_a_new_row_is_a_bad_row(root: Path) -> None:
    draw(root, root / "split.csv", CONFIG)
    Image.new("L", (8, 8)).save(root / "images" / "new.png")
    change(root, lambda table: pd.concat([table, table.iloc[:1].assign(image="new.png")]))
    cases = read(root)
    with pytest.raises(BadRowsError, match=r"row 41 \(new.png\), split: the id is not in split.csv"):
        cases.resolve("fail")
    assert len(cases.resolve("skip")) == 40


def test_rows_that_were_left_out_when_it_was_drawn_have_one_problem(root: Path) -> None:
    change(root, lambda table: table.assign(label=["", *table["label"][1:]]))
    draw(root, root / "split.csv", replace(CONFIG, on_bad_row="skip"))
    assert [(problem.row, problem.message) for problem in read(root).problems] == [(1, "missing label")]


def test_a_plain_list_of_ids(root: Path) -> None:
    """A published split: no fingerprints, other names of splits, unknown ids."""
    rows = "".join(f"{i}.png,{'training' if i < 30 else 'Test'}\n" for i in range(40))
    (root / "split.csv").write_text(f"id,split\n{rows}far.png,test\n")
    assert read(root).splits == {"train": 30, "test": 10}


def test_cases_of_several_images(root: Path) -> None:
    config = DatasetConfig(table="cases.csv", study_column="patient")
    draw(root, root / "split.csv", config)
    cases = read_cases(root, replace(config, split_table="split.csv"))
    assert len(cases) == 20 and cases.problems == [] and cases.splits == {"train": 14, "val": 3, "test": 3}


def test_nothing_of_it_is_asked_for_prediction(root: Path) -> None:
    config = replace(CONFIG, table="cases.csv", split_table="gone.csv")
    cases = read_cases(root, config, require_labels=False)
    assert cases.splits == {} and cases.problems == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,split\n0.png,train\n0.png,val\n", "the id '0.png' twice, again in row 2"),
        ("id,split\n0.png,train\n1.png,validate\n", "row 2: unknown split 'validate'"),
        ("id,split\n0,train\n", "No row of cases.csv is in"),
        ("image,split\n0.png,train\n", "no column 'id'"),
        ("id,split\n0.png\n", "row 1: the line has 1 cells"),
    ],
)
def test_bad_tables(root: Path, content: str, words: str) -> None:
    (root / "split.csv").write_text(content)
    with pytest.raises(ValueError, match=words):
        read(root)


def test_no_such_table_and_no_writing_over(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"split\.csv .* is neither in the working"):
        read(root)
    draw(root, root / "split.csv", CONFIG)
    with pytest.raises(FileExistsError, match="choose another --output"):
        draw(root, root / "split.csv", CONFIG)


def test_a_split_column_that_is_not_to_be_read(root: Path) -> None:
    cases = read_cases(root, replace(CONFIG, split_column=None))
    assert cases.splits == {} and cases.problems == []
    change(root, lambda table: table.assign(fold=[str(i % 4) for i in range(40)]))
    folded = replace(CONFIG, group_column=None, fold_column="fold", folds={"test": [0]})
    with pytest.raises(ValueError, match=r"--dataset\.split_column null"):
        read_cases(root, folded)
    assert read_cases(root, replace(folded, split_column=None)).splits == {"train": 30, "test": 10}
