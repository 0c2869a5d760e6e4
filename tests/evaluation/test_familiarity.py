"""Familiarity: distances by an independent computation, flags, saved values and refusals."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import mmfusion
from mmfusion.artifacts.names import FAMILIARITY
from mmfusion.data import DatasetConfig, Processor, read_cases
from mmfusion.data.table_columns import TableColumns
from mmfusion.evaluation.familiarity import _part, fit_familiarity
from mmfusion.inference.familiarity import case_level, look_of
from mmfusion.inference.predictor import Predictor
from mmfusion.models import create_model


def test_distance_is_that_of_the_shrunk_covariance():
    from sklearn.covariance import LedoitWolf

    rng = np.random.default_rng(0)
    rows, others = (rng.normal(3, 1, (400, 6)) @ np.linspace(1, 3, 36).reshape(6, 6) for _ in range(2))
    part = _part(rows, others, np.array([1, 0.5, 0.1], dtype=np.float32), 6)
    scaled = rows.std(axis=0)
    fitted = LedoitWolf().fit(rows / scaled)
    assert part.distance(others) == pytest.approx(np.sqrt(fitted.mahalanobis(others / scaled)), rel=0.02)
    assert part.level(others, np.array([1, 0.5, 0.1], dtype=np.float32)).mean() == pytest.approx(0.5, abs=0.1)
    few = _part(rows, others, np.array([1.0], dtype=np.float32), 2)
    assert few.rest > 0 and np.corrcoef(few.distance(others), part.distance(others))[0, 1] > 0.3


def test_look_does_not_depend_on_the_batch_and_tells_grey():
    pixels = torch.randn(4, 3, 20, 24)
    grey = pixels.mean(dim=1, keepdim=True).expand(-1, 3, -1, -1)
    assert torch.equal(look_of(pixels)[2], look_of(pixels[2:3])[0])
    assert (look_of(grey)[:, 9:11] < look_of(pixels)[:, 9:11] - 3).all()


def test_case_is_as_familiar_as_its_least_familiar_modality():
    level, unlike = case_level({"image": np.array([0.5, 0.01, np.nan]), "text": np.array([0.9, 0.6, np.nan])})
    assert level[:2] == pytest.approx([1.0, 0.02]) and np.isnan(level[2]) and unlike == ["", "image", ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """An untrained model fitted to 60 training and 60 validation rows of reddish images and an age."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    lines = ["image,label,age,split"]
    for i in range(120):
        pixels = rng.integers(0, 60, (32, 32, 3)) + np.array([rng.integers(120, 190), 60, 40])
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"{i}.png")
        lines.append(f"{i}.png,{'ab'[i % 2]},{rng.integers(20, 80)},{'train' if i < 60 else 'val'}")
    (root / "cases.csv").write_text("\n".join(lines))
    cases = read_cases(root, DatasetConfig())
    table = TableColumns.fit(cases.select("train").frame, numeric=["age"])
    processor = Processor(["a", "b"], image_size=32, table=table)
    torch.manual_seed(0)
    args = {"table_encoder": "table_mlp", "table_args": table.table_args(), "text_encoder": None}
    predictor = Predictor(create_model("test_mibf", num_classes=2, **args), processor)
    predictor.familiarity = fit_familiarity(predictor, cases.select("train"), cases.select("val"), min_patients=2)
    assert fit_familiarity(predictor, cases.select("train"), cases.select("val"), min_patients=20) is None
    return root, predictor


def test_unlike_rows_are_flagged_and_refused_only_where_asked(model, tmp_path):
    root, predictor = model
    folder = predictor.save_pretrained(tmp_path / "model")
    predictor = mmfusion.Predictor.from_pretrained(folder)
    usual = {"image": str(root / "3.png"), "age": 50}
    blue = Image.fromarray(np.random.default_rng(1).integers(0, 255, (32, 32, 3)).astype(np.uint8))
    told = predictor.predict([usual, usual | {"image": blue}, usual | {"age": 400}, {"image": str(root / "3.png")}])
    assert told[0]["familiarity"] > 0.05 and told[0]["unlike"] == ""
    assert told[1]["familiarity"] < 0.05 and told[1]["unlike"] == "image"
    assert told[2]["unlike"] == "table" and told[3]["unlike"] == ""
    refused = predictor.predict([usual, usual | {"image": blue}], refuse_unfamiliar=0.01)
    assert "error" not in refused[0] and refused[1]["error"].startswith("Unlike the training data (image)")
    table = mmfusion.predict(root, model=[f"local-dir:{folder}"])
    assert {"familiarity", "unlike"} <= {*table.columns} and (table["familiarity"] < 0.05).mean() < 0.1


def test_compiled_model_tells_the_same(model, tmp_path, graphs):
    """Compiled once for all views and batch sizes; familiarity and explanations are the same."""
    folder = model[1].save_pretrained(tmp_path / "model")
    plain, compiled = (mmfusion.Predictor.from_pretrained(folder, compile=c) for c in (False, True))
    rows = [{"image": str(model[0] / f"{i}.png"), "age": 20 + 9 * i} for i in range(5)]
    for found, expected in zip(*(p.predict(rows, batch_size=3, tta=True) for p in (compiled, plain)), strict=True):
        assert found.pop("probabilities") == pytest.approx(expected.pop("probabilities"), abs=1e-6)
        assert found.pop("probability") == pytest.approx(expected.pop("probability"), abs=1e-6)
        assert found == expected and "familiarity" in found
    assert len(graphs) == 1
    for row in rows[:2]:
        assert np.allclose(compiled.explain(row).heat_map, plain.explain(row).heat_map, atol=1e-5)
    table, other = (mmfusion.predict(model[0], model=[f"local-dir:{folder}"], compile=c) for c in (True, False))
    pd.testing.assert_frame_equal(table, other, rtol=1e-4)
    assert len(graphs) == 2


def test_file_holds_no_row_and_is_checked(model, tmp_path):
    folder = model[1].save_pretrained(tmp_path / "model")
    stored = load_file(folder / FAMILIARITY)
    assert max(array.shape[0] * (array.shape[1] if array.ndim > 1 else 1) for array in stored.values()) < 60 * 200
    assert stored["levels"].min() * 60 >= 2  # no quantile of fewer than two patients
    (folder / FAMILIARITY).write_bytes((folder / FAMILIARITY).read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"does not match config\.json"):
        mmfusion.Predictor.from_pretrained(folder)
    with pytest.raises(ValueError, match="without a familiarity detector"):
        Predictor(model[1].model, model[1].processor).predict([{"age": 3}], refuse_unfamiliar=0.01)
