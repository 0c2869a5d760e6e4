"""Tables in memory in ``Predictor.predict``, and probabilities in scikit-learn's format."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from mmfusion.data import DatasetConfig, Processor, fit_wordpiece
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.rows import frame_rows
from mmfusion.inference.run import predict_path
from mmfusion.models import create_model


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    tokenizer = fit_wordpiece(["a red green blue spot, patient of 30 years"], 128)
    processor = Processor(["a", "b", "c"], image_size=32, tokenizer=tokenizer, max_length=16)
    model = create_model("test_mibf", num_classes=3, text_args={"vocab_size": len(tokenizer)})
    return Predictor(model, processor, provenance={"dataset": {"image_column": "photo", "text_column": "note"}})


@pytest.fixture
def frame(toy: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    monkeypatch.chdir(toy)
    return pd.read_csv(toy / "cases.csv")[:6]


def test_a_table_is_a_list_of_rows(predictor: Predictor, frame: pd.DataFrame) -> None:
    rows = [
        {"image": image, "text": None if pd.isna(text) else text}
        for image, text in frame[["image", "text"]].to_numpy().tolist()
    ]
    expected = predictor.predict(rows)
    for table in (frame, pa.Table.from_pandas(frame), frame.rename(columns={"image": "photo", "text": "note"})):
        assert predictor.predict(table) == expected


def test_predict_proba(predictor: Predictor, frame: pd.DataFrame) -> None:
    found = predictor.predict_proba(frame)
    assert found.shape == (6, 3) and found.dtype == np.float64
    assert predictor.classes_.tolist() == ["a", "b", "c"]
    assert np.abs(found.sum(axis=1) - 1).max() < 1e-6
    labels = [row["label"] for row in predictor.predict(frame)]
    assert predictor.classes_[found.argmax(axis=1)].tolist() == labels
    assert predictor.predict_proba([]).shape == (0, 3)
    with pytest.raises(ValueError, match=r"Row 2 cannot be predicted: .*nowhere\.png"):
        predictor.predict_proba(frame.assign(image=["case0.png", *["nowhere.png"] * 5]))


def test_predict_path_of_a_table(predictor: Predictor, frame: pd.DataFrame, tmp_path: Path) -> None:
    renamed = frame.rename(columns={"image": "photo", "text": "note"})
    done = predict_path(predictor, renamed, tmp_path / "out.csv")
    found = pd.read_csv(done.path)
    assert done.rows == 6 and done.unreadable == 0
    assert np.abs(found[["p_a", "p_b", "p_c"]].to_numpy() - predictor.predict_proba(frame)).max() < 1e-5


def test_a_template_given_once_does_not_stay(predictor: Predictor, frame: pd.DataFrame, tmp_path: Path) -> None:
    dataset = replace(predictor.dataset, image_column="image", text_column=None)
    plain = predict_path(predictor, frame, tmp_path / "a.csv", dataset=dataset).frame()
    templated = replace(dataset, text_template="{other} spot")
    predict_path(predictor, frame.assign(other="green"), tmp_path / "b.csv", dataset=templated)
    assert predictor.processor.text_template is None
    pd.testing.assert_frame_equal(predict_path(predictor, frame, tmp_path / "c.csv", dataset=dataset).frame(), plain)


def test_regions_of_a_table_are_those_of_training(predictor: Predictor) -> None:
    dataset = DatasetConfig(roi_columns=["x0", "y0", "x1", "y1"])
    frame = pd.DataFrame({"image": ["a.png", "b.png"], "x0": [1, None], "y0": [2, 2], "x1": [30, 3], "y1": [40, 4]})
    assert [row["roi"] for row in frame_rows(frame, dataset)] == [(1.0, 2.0, 30.0, 40.0), None]
