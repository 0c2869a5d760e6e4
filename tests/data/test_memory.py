"""Tables in memory: the same rows, fingerprints and predictions as from a file."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from mmfusion.data import DatasetConfig, read_cases
from mmfusion.data.early import check_data
from mmfusion.data.memory import MemoryTable
from mmfusion.data.read import stream_cases
from mmfusion.files import write_yaml
from mmfusion.settings import with_settings
from mmfusion.training import RunConfig


@pytest.fixture
def frame(toy: Path) -> pd.DataFrame:
    return pd.read_csv(toy / "cases.csv")


def test_reads_as_its_file_does(toy: Path, frame: pd.DataFrame) -> None:
    config = DatasetConfig(image_root=str(toy))
    from_file = read_cases(toy)
    for table in (frame, pa.Table.from_pandas(frame), frame.iloc[::-1]):
        cases = read_cases(table, config)
        assert cases.problems == [] and len(cases) == 37
        assert cases.fingerprint() == from_file.fingerprint()
    assert next(stream_cases(frame, config, processor_labels="abc")).splits == {"train": 24, "val": 7, "test": 6}
    check_data(frame, config, split="test")
    with pytest.raises(ValueError, match="table in memory, 37 rows has no column 'dx'"):
        check_data(frame, DatasetConfig(label_column="dx"))


def test_image_paths(toy: Path, frame: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    assert read_cases(frame).problems == []
    monkeypatch.chdir(tmp_path)
    assert len(read_cases(frame).problems) == 37
    absolute = frame.assign(image=[str(toy / name) for name in frame["image"]])
    for config in (DatasetConfig(), DatasetConfig(image_root=str(toy))):
        cases = read_cases(absolute, config)
        assert cases.problems == [] and cases.image_root == toy
        assert cases.frame["image"].tolist() == frame["image"].tolist()
    outside = read_cases(absolute, DatasetConfig(image_root=str(tmp_path)))
    assert "inside the image root" in outside.problems[0].message


def test_cells_are_texts_as_in_a_file() -> None:
    frame = pd.DataFrame(
        {
            "label": pd.Categorical(["x", "y", "x"]),
            "n": [1.0, np.nan, 2.5],
            "k": pd.array([3, None, 4], dtype="Int64"),
            "flag": [True, False, True],
            "day": pd.to_datetime(["2020-01-02", None, "2021-03-04"]),
            7: ["a", None, "unknown"],
        },
        index=[5, 5, 9],
    )
    cases = read_cases(frame, DatasetConfig(table_columns="auto")).frame
    assert cases["label"].tolist() == ["x", "y", "x"]
    assert cases["n"].tolist() == ["1", None, "2.5"] and cases["k"].tolist() == ["3", None, "4"]
    assert cases["flag"].tolist() == ["True", "False", "True"]
    assert cases["day"].tolist() == ["2020-01-02 00:00:00", None, "2021-03-04 00:00:00"]
    assert cases["7"].tolist() == ["a", None, None] and cases["id"].tolist() == ["row-1", "row-2", "row-3"]
    assert read_cases(pa.table({"label": ["x"], "n": [None]}), DatasetConfig(table_columns="auto")).frame[
        "n"
    ].tolist() == [None]


def test_stands_for_a_path_in_a_configuration(frame: pd.DataFrame, tmp_path: Path) -> None:
    config = RunConfig(data=frame)  # type: ignore[arg-type]
    assert isinstance(config.data, MemoryTable) and f"{config.data}" == "table in memory, 37 rows"
    changed = with_settings(config, {"train.lr": 0.5})
    assert changed.data is config.data and copy.deepcopy(config).data is config.data
    assert str(pickle.loads(pickle.dumps(config.data)).columns) == str(config.data.columns)
    write_yaml(tmp_path / "config.yaml", {"data": config.data})
    assert yaml.safe_load((tmp_path / "config.yaml").read_text()) == {"data": "table in memory, 37 rows"}


def test_refused() -> None:
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="column 'a' more than once"):
        read_cases(twice)
    with pytest.raises(ValueError, match="no rows"):
        read_cases(twice.iloc[:0, :1])
    with pytest.raises(TypeError, match="not dict"):
        read_cases({"a": [1]})  # type: ignore[arg-type]
