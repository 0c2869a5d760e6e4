"""One case for an application: probabilities, conformal set, explanation and notes."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import mmfusion
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.inference import Ensemble
from mmfusion.serving import diagnose
from mmfusion.serving.run import swept

LABELS = ["no", "yes", "unsure"]
ROW = {"image": np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8), "age": 30}


def rule(*thresholds: float) -> dict:
    return {"coverage": 0.9, "method": "lac", "thresholds": list(thresholds)}


@pytest.fixture(scope="module")
def predictor() -> mmfusion.Predictor:
    torch.manual_seed(0)
    tokenizer = fit_wordpiece(["a 30-year-old female"], 128)
    processor = Processor(LABELS, image_size=32, tokenizer=tokenizer, text_template="{age}-year-old {sex}")
    model = mmfusion.create_model("test_concat", num_classes=3, text_args={"vocab_size": len(tokenizer)})
    return mmfusion.Predictor(model, processor, calibration={"temperature": 1.0, "fitted_on": "val", "n": 60})


def test_case(predictor: mmfusion.Predictor) -> None:
    (plain,) = predictor.predict([ROW])
    found = diagnose(predictor, ROW)
    assert (found.label, found.probabilities, found.inputs) == (plain["label"], plain["probabilities"], "image+text")
    assert found.likely is None and found.coverage is None
    assert found.explanation.contributions.values["image+text"] == pytest.approx(found.probability, abs=1e-6)
    assert any("sex" in note for note in found.notes)  # the row lacks it
    assert diagnose(predictor, ROW, explain=False).explanation is None


def test_the_set_is_that_of_the_rule(predictor: mmfusion.Predictor) -> None:
    """A class is in the set if 1 - p is at most the threshold; the most probable class always is."""
    found = diagnose(predictor, ROW, explain=False)
    ranked = sorted(LABELS, key=lambda name: -found.probabilities[name])
    second = found.probabilities[ranked[1]]
    for threshold, count in ((0.0, 1), (1 - second + 1e-6, 2), (1.0, 3)):
        calibration = predictor.calibration | {"conformal": rule(*[threshold] * 3)}
        with_rule = diagnose(replace(predictor, calibration=calibration), ROW, explain=False)
        assert with_rule.likely == ranked[:count] and with_rule.coverage == 0.9


@pytest.mark.parametrize("wrong", [rule(0.5), {"method": "lac"}, rule(1, 1, 1) | {"method": "x"}, "lac"])
def test_a_damaged_rule_is_refused(predictor: mmfusion.Predictor, wrong: object) -> None:
    with pytest.raises(ValueError, match=r"calibration\.conformal"):
        diagnose(replace(predictor, calibration=predictor.calibration | {"conformal": wrong}), ROW, explain=False)


def test_an_ensemble_says_why_it_is_not_explained(predictor: mmfusion.Predictor) -> None:
    found = diagnose(Ensemble([predictor, predictor]), ROW)
    assert found.explanation is None and any("ensemble" in note for note in found.notes)


def test_a_case_unlike_the_training_rows_is_told() -> None:
    shipped = mmfusion.Predictor.from_pretrained("mibf_v2_lite0.ham10000", device="cpu")
    assert "Unlike the training rows: image." in diagnose(shipped, {"image": ROW["image"]}, explain=False).notes


def test_unreadable_case(predictor: mmfusion.Predictor, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"a\.png cannot be decoded"):
        diagnose(predictor, {"image": tmp_path / "a.png"})


def test_old_files_are_swept(tmp_path: Path) -> None:
    (tmp_path / "upload").mkdir()
    old, new = tmp_path / "upload" / "old", tmp_path / "new"
    for path in (old, new):
        path.write_text("x")
    os.utime(old, (0, 0))
    with swept(tmp_path, age=1000, pause=0.01):
        for _ in range(500):
            if not old.exists():
                break
            time.sleep(0.01)
    assert not old.exists() and new.exists()
