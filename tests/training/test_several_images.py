"""Studies of slices, pairs of views and regions of interest, from the table to the prediction."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import mmfusion
from mmfusion.data import DatasetConfig
from mmfusion.inference.run import predict_path
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig, train


@pytest.fixture(scope="module")
def spine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 patients of two classes that differ in brightness: 2 to 4 slices each, and two views, some missing."""
    root = tmp_path_factory.mktemp("spine")
    rng = np.random.default_rng(0)
    slices, views, patients = [], [], []
    for i in range(12):
        patients.append({"patient": i, "label": "ab"[i % 2], "sex": "MF"[i // 2 % 2], "fold": i // 4})
        for j in range(2 + i % 3):
            name = f"p{i}_slice{j}.png"
            pixels = rng.integers(0, 100, (32, 32)) + 100 * (i % 2)
            Image.fromarray(pixels.astype(np.uint8)).save(root / name)
            slices.append({"image": name, "patient": i})
        shown = [f"p{i}_slice{j}.png" for j in (0, 1)]
        views.append(
            {"t1": "" if i % 5 == 3 else shown[0], "t2": shown[1], "patient": i, "x0": 4, "y0": 4, "x1": 20, "y1": 20}
        )
    for name, rows in (("slices", slices), ("views", views), ("patients", patients)):
        with (root / f"{name}.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    return root


JOINED: dict[str, Any] = {
    "labels_table": "patients.csv",
    "join_on": "patient",
    "fold_column": "fold",
    "folds": {"val": [1], "test": [2]},
    "text_template": "sex {sex}",
}
TABLES: dict[str, dict[str, Any]] = {
    "slices": {"table": "slices.csv", "study_column": "patient"},
    "views": {"table": "views.csv", "view_columns": ["t1", "t2"], "id_column": "patient"},
    "image": {
        "table": "views.csv",
        "image_column": "t2",
        "roi_columns": ["x0", "y0", "x1", "y1"],
        "id_column": "patient",
    },
}


def config(spine: Path, output: Path, table: str, model: str, **parts: Any) -> RunConfig:
    return RunConfig(
        data=str(spine),
        output=str(output),
        dataset=DatasetConfig(**JOINED, **TABLES[table]),
        model=ModelConfig(name=model, image_encoder="test_resnet", **parts),
        processor=ProcessorConfig(image_size=32, max_length=8),
        train=TrainConfig(epochs=1, batch_size=2, precision="fp32"),
    )


@pytest.mark.parametrize(
    ("table", "model", "parts"),
    [
        ("slices", "bilstm_lite0", {"stem": "2.5d", "aggregator_args": {"hidden_size": 4}}),
        ("views", "multiview_lite0", {"image_args": {"dim": 8}, "text_encoder": "none"}),
        ("image", "dual_expert_lite0", {}),
    ],
)
def test_from_table_to_prediction(spine, tmp_path, table, model, parts, caplog) -> None:
    run = config(spine, tmp_path / "run", table, model, **parts)
    result = train(run)
    assert result.test is not None and 0 <= result.test["accuracy"] <= 1
    predictor = mmfusion.Predictor.from_pretrained(f"local-dir:{tmp_path / 'run'}")
    assert (predictor.model.text_tower is None) == ("text_encoder" in parts)

    # the folder again: the same probabilities as the evaluation of its test rows
    done = predict_path(predictor, spine, tmp_path / "p.csv", dataset=run.dataset)
    assert (done.rows, done.unreadable) == (12, 0)
    by_id = {row["id"]: row for row in csv.DictReader((tmp_path / "p.csv").open())}
    for row in csv.DictReader((tmp_path / "run" / "predictions.csv").open()):
        assert float(row["p_a"]) == pytest.approx(float(by_id[row["id"]]["p_a"]), abs=1e-4)

    # one patient at a time, as an application gives them
    patient = {"sex": "M", "images": [spine / f"p8_slice{j}.png" for j in range(4)]}
    if table == "views":
        patient = {"sex": "M", "images": [None, spine / "p8_slice1.png"]}
    elif table == "image":
        patient = {"sex": "M", "image": spine / "p8_slice1.png", "roi": (4, 4, 20, 20)}
    found, alone = predictor.predict([patient, {"image": spine / "p8_slice1.png"}])
    assert found["probabilities"]["a"] == pytest.approx(float(by_id["8"]["p_a"]), abs=1e-4)
    assert "error" not in alone
    if table == "image":
        assert "has 2 images" in predictor.predict([{"images": [spine / "p8_slice1.png"] * 2}])[0]["error"]


def test_a_damaged_slice_is_left_out_of_its_study_and_told(spine, tmp_path, caplog) -> None:
    import shutil

    data = tmp_path / "data"
    shutil.copytree(spine, data)
    damaged = data / "p2_slice3.png"
    damaged.write_bytes(damaged.read_bytes()[:60])
    run = config(data, tmp_path / "run", "slices", "bilstm_lite0", text_encoder="none")
    with pytest.raises(ValueError, match=r"p2_slice3.png.*cannot be decoded"):
        train(run)
    run.dataset.on_bad_row = "skip"
    train(run)
    predictor = mmfusion.Predictor.from_pretrained(f"local-dir:{tmp_path / 'run'}")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        done = predict_path(predictor, data, tmp_path / "p.csv", dataset=run.dataset)
        assert (done.rows, done.unreadable) == (12, 0)
    assert "p2_slice3.png" in caplog.text and "its case is kept without it" in caplog.text


def test_slices_need_a_model_of_slices(spine, tmp_path) -> None:
    with pytest.raises(ValueError, match="data have slices, but multiview_lite0 expects pixel_values as views"):
        train(config(spine, tmp_path / "run", "slices", "multiview_lite0"))
