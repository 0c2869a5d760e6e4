"""Updates compared with independent computations, and a complete validation of a small model."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

import mmfusion
from mmfusion.cli import main as cli
from mmfusion.data import Processor
from mmfusion.decisions import Decisions, OperatingPoint
from mmfusion.evaluation.temperature import row_losses
from mmfusion.inference.cases import Predictions
from mmfusion.inference.predictor import Predictor
from mmfusion.models import create_model
from mmfusion.sites.config import ValidateConfig
from mmfusion.sites.run import _decisions
from mmfusion.sites.updates import KINDS, choose_update, fit_update, shifted_prior

SHIPPED = {"validate": "mibf_v2_lite0.ham10000", "evaluate": ["mibf_v2_lite0.ham10000"]}


def cases(n: int, seed: int = 0, prior=(0.5, 0.3, 0.2), scale: float = 1.0):
    """Labels, and probabilities that are calibrated for equal class shares at a scale of 1."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(3, n, p=prior)
    logits = rng.normal(0, 1, (n, 3)) + 1.0 * np.eye(3)[labels]  # log-likelihood ratios of unit normals, 1 apart
    return labels, softmax(scale * logits, axis=1)


def test_shares_without_labels_are_those_of_the_likelihood():
    _, p = cases(4000, prior=(0.7, 0.2, 0.1))
    old = np.full(3, 1 / 3)
    found = shifted_prior(p, old)
    assert found == pytest.approx([0.7, 0.2, 0.1], abs=0.05)

    def loss(free):
        return -np.log(p @ (softmax([*free, 0.0]) / old)).sum()

    best = minimize(loss, [0.0, 0.0], tol=1e-12).x
    assert found == pytest.approx(softmax([*best, 0.0]), abs=1e-5)


def test_updates_of_enough_cases_undo_what_was_done():
    labels, p = cases(6000, prior=(1 / 3, 1 / 3, 1 / 3), scale=2.0)
    assert fit_update("temperature", labels, p).slope == pytest.approx([0.5] * 3, abs=0.03)
    update = fit_update("slope_intercept", labels, p)
    assert update.slope == pytest.approx([0.5] * 3, abs=0.05) and np.abs(update.intercept).max() < 0.1
    assert fit_update("none", labels, p).apply(p) == pytest.approx(p)
    losses = [row_losses(labels, fit_update(kind, labels, p, [1 / 3] * 3).apply(p)).mean() for kind in KINDS]
    assert losses[3] < losses[0] and losses[2] < losses[0]
    z = np.log(p)
    own = -log_softmax(update.slope * z + update.intercept, axis=1)[np.arange(len(labels)), labels]
    assert row_losses(labels, update.apply(p)) == pytest.approx(own)
    with pytest.raises(ValueError, match="class shares"):
        fit_update("prior_shift", labels, p)


def test_few_cases_choose_nothing_and_a_plain_need_is_seen():
    labels, p = cases(60, prior=(1 / 3, 1 / 3, 1 / 3))
    assert choose_update(labels, p, np.arange(60)).kind == "none"
    labels, p = cases(600, prior=(1 / 3, 1 / 3, 1 / 3), scale=3.0)
    assert choose_update(labels, p, np.arange(600)).kind == "temperature"
    labels, p = cases(600, prior=(0.9, 0.05, 0.05))
    assert choose_update(labels, p, np.arange(600), [1 / 3] * 3).kind in ("prior_shift", "slope_intercept")


def test_a_site_is_described_measured_and_its_update_used(toy, tmp_path, capsys):
    folder = tmp_path / "model"
    processor = Processor(["a", "b", "c"], image_size=32)
    site = {"rows": 24, "labels": {"a": 20, "b": 2, "c": 2}, "brightness": [0.1, 0.3, 0.5]}
    calibration = {"temperature": 1.5, "fitted_on": "val", "n": 60}
    calibration["conformal"] = {"coverage": 0.9, "method": "lac", "thresholds": [0.8] * 3}
    Predictor(create_model("test_image", num_classes=3), processor, calibration, {"site": site}).save_pretrained(folder)
    data = tmp_path / "north"
    shutil.copytree(toy, data)
    argv = ["validate", "--model", f"local-dir:{folder}", "--data", str(data), "--store", "--local", "18"]
    argv += ["--output", str(tmp_path / "out"), "--dataset.image_root", "."]
    assert cli.main(argv) == 2  # 37 rows are too few
    assert "evaluated on" in capsys.readouterr().err
    table = (data / "cases.csv").read_text()
    for picture in [*data.glob("case*.png")]:
        shutil.copy(picture, data / f"further_{picture.name}")
    (data / "cases.csv").write_text(table + table.split("\n", 1)[1].replace("case", "further_case"))
    argv[argv.index("--local") + 1] = "30"
    argv += ["--alarm", "a", "--operating_points", "sensitivity>=0.75"]
    assert cli.main(argv) == 0
    told = capsys.readouterr().out
    assert "label a" in told and "83.3%" in told and "slope_intercept" in told
    stored = folder / "calibrations" / "north.json"
    update = json.loads(stored.read_text())
    assert update["kind"] in KINDS and update["n"] >= 20
    (point,) = update["decisions"]["points"]
    assert (point["alarm"], point["rule"], point["fitted_on"]) == (["a"], "sensitivity>=0.75", update["n"])
    (figures,) = json.loads((tmp_path / "out" / "validation.json").read_text())["operating_points"]
    assert figures["point"] == point and "`sensitivity>=0.75`" in told
    assert cli.main(argv) == 2 and "choose another --site" in capsys.readouterr().err
    for verb in SHIPPED:  # neither the package nor a cache is written to
        options = {"operating_points": ["sensitivity>=0.9"]} if verb == "evaluate" else {}
        with pytest.raises(ValueError, match="folder of your own"):
            getattr(mmfusion, verb)(data, model=SHIPPED[verb], store=True, **options)
    update |= {"slope": [2.0, 1.0, 1.0], "intercept": [0.0, 1.0, 0.0], "kind": "slope_intercept"}
    stored.write_text(json.dumps(update))
    plain = mmfusion.predict(data, model=[f"local-dir:{folder}"])[["p_a", "p_b", "p_c"]].to_numpy()
    answers = mmfusion.predict(data, model=[f"local-dir:{folder}"], calibration="north")
    updated = answers[["p_a", "p_b", "p_c"]].to_numpy()
    assert answers["alarm"].tolist() == np.where(updated[:, 0] >= point["threshold"], "yes", "no").tolist()
    assert updated == pytest.approx(softmax(np.log(plain) * [2, 1, 1] + [0, 1, 0], axis=1), abs=1e-5)
    fitted = mmfusion.Predictor.from_pretrained(folder, calibration="north").calibration
    assert "conformal" not in fitted and fitted["temperature"] == 1.5  # sets were fitted without the update
    with pytest.raises(FileNotFoundError, match="stored with the model: north"):
        mmfusion.Predictor.from_pretrained(folder, calibration="south")
    stored.write_text(json.dumps({name: value for name, value in update.items() if name != "n"}))
    with pytest.raises(ValueError, match="not an update written by mmfusion validate"):
        mmfusion.Predictor.from_pretrained(folder, calibration="north")
    stored.write_text(json.dumps(update | {"decisions": {"points": [point | {"alarm": ["x"]}]}}))
    with pytest.raises(ValueError, match="no class 'x'"):
        mmfusion.Predictor.from_pretrained(folder, calibration="north")
    stored.write_text(json.dumps(update | {"weights_sha256": "other"}))
    with pytest.raises(ValueError, match="another model"):
        mmfusion.Predictor.from_pretrained(folder, calibration="north")


def test_the_points_of_a_model_are_chosen_again_for_the_site():
    """Three of four cases of class a are above 0.5 here, so that the threshold keeps 0.75 of them instead of 0.9."""
    frame = pd.DataFrame({"group": [f"p{i}" for i in range(6)]})
    p = np.array([[0.9], [0.6], [0.5], [0.1], [0.3], [0.2]], dtype=np.float32)
    local = Predictions(frame, np.array([0, 0, 0, 0, 1, 1]), np.hstack([p, 1 - p]), np.hstack([p, 1 - p]), 0, {})
    point = OperatingPoint(["a"], "sensitivity>=0.75", 0.9, 100)
    model = Predictor(create_model("test_image", num_classes=2), Processor(["a", "b"], image_size=32))
    model.decisions = Decisions([point])
    (found,) = _decisions(local, local, model, ValidateConfig("m", "d")).points
    assert 0.3 < found.point.threshold <= 0.5
    assert (found.sensitivity.value, found.specificity.value) == (0.75, 1.0)
