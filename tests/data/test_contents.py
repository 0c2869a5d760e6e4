"""Contents of the rows of a data set, counted by hand."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from mmfusion.data import DatasetConfig, read_cases
from mmfusion.data.contents import Contents, contents_of
from mmfusion.data.problems import BadRowsError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    rows = ["image,label,note,age,sex", "a.png,x,itches,60,male", ",y,,61,", ",y,,,female", "a.png,x,,n/a,unknown"]
    (tmp_path / "cases.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


@pytest.mark.parametrize(
    ("template", "columns", "line"),
    [
        (None, [], "4 rows: image 2, text 1"),
        ("{age} years", [], "4 rows: image 2, text 2, columns age 50 %"),
        ("{age} years, {sex}", [], "4 rows: image 2, text 3, columns age 50 %, sex 50 %"),
        ("{height} cm", ["sex"], "4 rows: image 2, text 1, columns height 0 %, sex 50 %"),
    ],
)
def test_images_texts_and_columns_are_counted(folder: Path, template: str, columns: list[str], line: str) -> None:
    dataset = DatasetConfig(text_column="note", id_column=None)
    cases = read_cases(folder, dataset)
    how = {"template": template, "missing_values": dataset.missing_values, "columns": columns}
    assert contents_of(cases, **how).line() == line


def test_nearly_all_is_not_all() -> None:
    line = Contents(1000, 0, 0, {"a": 999, "b": 1, "c": 1000, "d": 0}).line("training rows")
    assert line == "1,000 training rows: image 0, text 0, columns a 99 %, b 1 %, c 100 %, d 0 %"


def test_a_label_that_the_model_does_not_know_is_told_once(folder: Path) -> None:
    cases = read_cases(folder, DatasetConfig(text_template="{age} {sex}"), processor_labels=["nevus", "y"])
    with pytest.raises(BadRowsError) as error:
        cases.resolve()
    told = str(error.value).splitlines()[1:]
    assert "  label 'x' in 2 rows: unknown label; the model knows nevus, y" in told
    assert told[-1] == "  dataset.label_map maps these labels to the classes of the model: {x: ...}"
