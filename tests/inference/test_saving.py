"""A predictor's folder: loading restores what was saved, and other folders are not overwritten."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mmfusion
from mmfusion.data import Processor
from mmfusion.inference import Ensemble

CALIBRATION = {"temperature": 2.0, "fitted_on": "val", "n": 60}
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
ROWS = [{"image": pixels} for pixels in PIXELS]


@pytest.fixture
def predictor() -> mmfusion.Predictor:
    torch.manual_seed(0)
    model = mmfusion.create_model("test_image", num_classes=2)
    return mmfusion.Predictor(
        model,
        Processor(["no", "yes"], image_size=32, mean=(0.1, 0.2, 0.3)),
        calibration=CALIBRATION,
        provenance={"seed": 3, "dataset": {"label_column": "dx"}},
        card={"dataset": "Toy", "license": "mit"},
    )


def test_what_is_saved_is_what_is_loaded(predictor: mmfusion.Predictor, tmp_path: Path) -> None:
    predictor.save_pretrained(tmp_path / "m", {"accuracy": 0.5})
    name = f"local-dir:{tmp_path / 'm'}"
    again = mmfusion.Predictor.from_pretrained(name, device="cpu")
    assert again.name == name and again.predict(ROWS) == predictor.predict(ROWS)
    assert (again.calibration, again.provenance, again.card) == (CALIBRATION, predictor.provenance, predictor.card)
    assert again.dataset.label_column == "dx" and again.processor.to_dict() == predictor.processor.to_dict()
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    assert config["mean"] == [0.1, 0.2, 0.3] and config["input_size"] == [3, 32, 32]
    assert {name: config[name] for name in config if name != "weights_sha256"} == predictor.config()
    assert json.loads((tmp_path / "m" / "metrics.json").read_text()) == {"accuracy": 0.5}
    assert config["label_names"] == list(predictor.labels)
    assert again.metrics == {"accuracy": 0.5}
    again.save_pretrained(tmp_path / "n")  # the metrics are saved with the model
    assert json.loads((tmp_path / "n" / "metrics.json").read_text()) == {"accuracy": 0.5}
    lines = str(again).splitlines()
    assert lines == repr(again).splitlines() and lines[0] == f"Predictor: {name}"
    assert [line.split(":")[0].strip() for line in lines[1:]] == ["classes", "inputs", "calibration", "size"]
    count = sum(p.numel() for p in again.model.parameters())
    assert "2.000" in lines[3] and lines[4] == f"  size: {count / 1e6:.1f} M parameters"


def test_the_temperature_is_applied_once(predictor: mmfusion.Predictor, tmp_path: Path) -> None:
    tempered = [list(row["probabilities"].values()) for row in predictor.predict(ROWS)]
    predictor.save_pretrained(tmp_path)
    plain = mmfusion.Predictor.from_pretrained(f"local-dir:{tmp_path}", calibrated=False)
    assert plain.calibration is None
    given = np.array([list(row["probabilities"].values()) for row in plain.predict(ROWS)])
    powers = given ** (1 / CALIBRATION["temperature"])
    np.testing.assert_allclose(tempered, powers / powers.sum(axis=1, keepdims=True), atol=1e-6)


def test_a_model_averages_over_views_where_it_was_saved_so(predictor: mmfusion.Predictor, tmp_path: Path) -> None:
    rows = [{"image": np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)}]
    plain, viewed = predictor.predict(rows), predictor.predict(rows, tta=True)
    assert plain != viewed and predictor.predict(rows, tta=False) == plain
    predictor.save_pretrained(tmp_path)
    assert "test-time" not in (tmp_path / "README.md").read_text()
    predictor.tta = True
    predictor.save_pretrained(tmp_path)
    again = mmfusion.Predictor.from_pretrained(tmp_path, device="cpu")
    assert again.predict(rows) == viewed and again.predict(rows, tta=False) == plain
    single = mmfusion.Predictor(predictor.model, predictor.processor, CALIBRATION)
    both = [[*row[0]["probabilities"].values()] for row in (plain, viewed)]
    mixed = Ensemble([single, again]).predict(rows)  # each as it was saved
    assert [*mixed[0]["probabilities"].values()] == pytest.approx(np.mean(both, axis=0), abs=1e-6)
    assert "mean over test-time augmentations" in str(again) and "test-time" in (tmp_path / "README.md").read_text()
    mmfusion.models.save_model(predictor.network(), tmp_path)  # other weights
    assert mmfusion.Predictor.from_pretrained(tmp_path, device="cpu").tta is False


def test_other_weights_lose_the_temperature_and_keep_the_processor(
    predictor: mmfusion.Predictor, tmp_path: Path
) -> None:
    predictor.save_pretrained(tmp_path)
    (tmp_path / "familiarity.safetensors").write_bytes(b"means of the training rows")
    mmfusion.models.save_model(predictor.network(), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["calibration"] is None and config["processor"] == predictor.processor.to_dict()
    assert not (tmp_path / "familiarity.safetensors").exists()


def test_several_models_are_not_saved_as_one(predictor: mmfusion.Predictor, tmp_path: Path) -> None:
    together = Ensemble([predictor, predictor])
    with pytest.raises(ValueError, match=r"the mean of 2 models.*is an exported model or an ensemble"):
        together.save_pretrained(tmp_path / "m")
    assert not (tmp_path / "m").exists()
    assert str(together).splitlines()[0] == "Ensemble: the mean of 2 models: the model, the model"
    assert "temperature" not in str(together) and together.calibration is None
