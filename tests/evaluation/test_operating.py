"""Operating points: chosen by a rule, reported at a prevalence, saved and applied; predictions by group."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import mmfusion
from mmfusion.decisions import Decisions, OperatingPoint, Rule
from mmfusion.evaluation.config import EvaluateConfig
from mmfusion.evaluation.operating import choose_points, choose_pooling, decision_figures, point_figures
from mmfusion.evaluation.thresholds import rule_threshold
from mmfusion.inference.cases import Predictions
from mmfusion.inference.grouping import by_group, joined, pooled
from mmfusion.inference.stream import Prediction
from mmfusion.training.config import TrainConfig

NAMES = ["mel", "nv", "bcc"]


def predictions(n: int = 300, seed: int = 0) -> Predictions:
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n // 3), 3)
    labels = rng.integers(0, 3, n // 3)[patient]
    logits = rng.normal(0, 1, (n, 3)) + 1.5 * np.eye(3)[labels]
    p = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    ids = [f"r{i}" for i in range(n)]
    frame = pd.DataFrame({"id": ids, "group": [f"g{i}" for i in patient]}, dtype=object)
    return Predictions(frame, labels, p, p, 0, {})


@pytest.mark.parametrize(
    "text", ["sensitivity>=0.9", "specificity >= 0.8", "alarms<=100 per 1000", "alarms<=300 per 1,000"]
)
def test_threshold_is_the_best_that_keeps_the_rule(text):
    found, rule = predictions(), Rule.parse(text)
    positive, score = found.labels == 0, found.probabilities[:, 0].astype(float)
    threshold = rule_threshold(positive, score, rule)

    def kept(t):
        value = {
            "sensitivity": np.mean(score[positive] >= t),
            "specificity": np.mean(score[~positive] < t),
            "alarms": np.mean(score >= t),
        }[rule.figure]
        return value <= rule.limit if rule.figure == "alarms" else value >= rule.limit

    good = [t for t in np.unique(score) if kept(t)]
    expected = max(good) if rule.figure == "sensitivity" else min(good)
    assert kept(threshold) and threshold == pytest.approx(expected, rel=2e-6) and threshold < expected


@pytest.mark.parametrize("text", ["sensitivity=0.9", "sensitivity>=90", "alarms<=100", "ppv>=0.5"])
def test_other_rules_are_refused(text):
    with pytest.raises(ValueError, match="rules are"):
        Rule.parse(text)


@pytest.mark.parametrize("config", [EvaluateConfig, TrainConfig])
def test_a_prevalence_is_of_classes(config):
    own = {"model": [], "data": ""} if config is EvaluateConfig else {}
    assert config(**own, prevalence=0.1, alarm=["mel"]).prevalence == 0.1
    with pytest.raises(ValueError, match="set them with"):
        config(**own, prevalence=0.1)


def test_alarms_are_kept_at_a_prevalence():
    found = predictions()
    positive, score = found.labels == 0, found.probabilities[:, 0].astype(float)
    rare = rule_threshold(positive, score, Rule("alarms", 0.1), 0.01)
    rate = 0.01 * np.mean(score[positive] >= rare) + 0.99 * np.mean(score[~positive] >= rare)
    assert 0.08 < rate <= 0.1 and rare < rule_threshold(positive, score, Rule("alarms", 0.1))


def test_figures_of_a_point_by_counting():
    found = predictions()
    (point,) = choose_points(found, NAMES, alarm=["bcc", "mel"], rules=["sensitivity>=0.9"])
    positive, alarm = found.labels != 1, found.probabilities[:, [0, 2]].astype(float).sum(axis=1) >= point.threshold
    told = point_figures(point, found, NAMES, replicates=20)
    assert told.sensitivity.value == pytest.approx(alarm[positive].mean()) and told.sensitivity.value >= 0.9
    assert told.ppv.value == pytest.approx(positive[alarm].mean())
    assert told.npv.value == pytest.approx(1 - positive[~alarm].mean())
    assert told.alarms.value == pytest.approx(1000 * alarm.mean())
    rare = point_figures(point, found, NAMES, 0.02, replicates=20)
    hit, wrong = 0.02 * told.sensitivity.value, 0.98 * (1 - told.specificity.value)
    assert rare.ppv.value == pytest.approx(hit / (hit + wrong))
    assert rare.alarms.value == pytest.approx(1000 * (hit + wrong))
    result = decision_figures(found, NAMES, alarm=["mel"], thresholds=[0.2], points=[point], replicates=20)
    assert result.observed == pytest.approx((found.labels == 0).mean()) and list(result.per_class) == NAMES
    evaluation = mmfusion.evaluation.Evaluation(decisions=result)
    assert mmfusion.evaluation.Evaluation.from_dict(evaluation.to_dict()).decisions == result
    assert "sensitivity>=0.9" in evaluation.decisions.markdown()


def test_rows_of_a_group_have_one_answer():
    p = np.array([[0.5, 0.5, 0.0], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    codes = np.array([0, 0, 1])
    assert pooled(p, codes, "mean") == pytest.approx(np.array([[0.3, 0.65, 0.05], [0.2, 0.2, 0.6]]))
    assert pooled(p, codes, "max")[0] == pytest.approx(np.array([0.5, 0.8, 0.1]) / 1.4)
    found = predictions()
    grouped = by_group(found, "mean")
    assert len(grouped.labels) == 100 and grouped.frame["id"].tolist() == [f"g{i}" for i in range(100)]
    assert grouped.probabilities[7] == pytest.approx(found.probabilities[21:24].mean(axis=0))
    assert choose_pooling(found) == choose_pooling(grouped) == "mean"
    found.labels[0] = (found.labels[0] + 1) % 3
    assert choose_pooling(found) == "mean"  # groups without a single answer
    with pytest.raises(ValueError, match="'g0' have different labels"):
        by_group(found, "max")


def test_groups_of_rows_that_cannot_all_be_read():
    log = np.log(np.array([[0.5, 0.5], [np.nan, np.nan], [0.1, 0.9], [np.nan, np.nan]], dtype=np.float32))
    errors = [None, "broken", None, "gone"]
    parts = [Prediction(0, log[:3], errors[:3], ["image", "", "text"]), Prediction(0, log[3:], errors[3:], [""])]
    names, whole = joined(parts, ["r0", "r1", "r2", "r3"], ["a", "a", None, "b"], "mean")
    assert names == ["a", "r2", "b"] and whole.errors == [None, None, "gone"]
    assert whole.probabilities[:2] == pytest.approx(np.array([[0.5, 0.5], [0.1, 0.9]])) and whole.inputs[0] == "image"


def test_a_group_is_as_familiar_as_its_least_familiar_row():
    names = list("hgfedcba")  # in this order, whatever the hashes of the names
    log = np.log(np.full((3, 2), 0.5, dtype=np.float32))
    familiar = {name: np.array([0.4, np.nan, 0.2], dtype=np.float32) for name in names}
    read = Prediction(0, log, [None] * 3, ["image"] * 3, familiarity=familiar)
    bad = Prediction(3, log[:1] * np.nan, ["broken"], [""])  # an uninformative part
    _, whole = joined([read, bad], list("wxyz"), ["a", "b", "a", "a"], "mean")
    assert list(whole.familiarity) == names
    for values in whole.familiarity.values():
        assert values == pytest.approx([0.2, np.nan], nan_ok=True)
    found = replace(predictions(6), familiarity={"image": np.array([0.3, 0.1, 0.2, np.nan, 0.5, 0.6])})
    assert by_group(found, "mean").familiarity["image"] == pytest.approx([0.1, 0.5])


def test_columns_and_saved_entries():
    point = OperatingPoint(["mel"], "sensitivity>=0.9", 0.2, 100)
    two = [point, OperatingPoint(["mel"], "alarms<=100 per 1000", 0.4, 100)]
    assert Decisions([point]).columns == ["alarm"]
    assert Decisions(two).columns == ["alarm_mel_sensitivity>=0.9", "alarm_mel_alarms<=100 per 1000"]
    for wrong in ({"points": [vars(point) | {"alarm": ["melon"]}]}, {"points": 3}, {"by_group": "median"}):
        with pytest.raises(ValueError, match="'decisions'"):
            Decisions.from_dict(wrong, NAMES)


def test_a_run_saves_its_points_and_predictions_apply_them(toy, tmp_path):
    """Train, evaluate with other points, and predict by row and by group."""
    import shutil

    data = tmp_path / "data"
    shutil.copytree(toy, data)
    table = pd.read_csv(data / "cases.csv", keep_default_na=False)
    table["patient"] = table["split"] + table["label"]
    table.to_csv(data / "cases.csv", index=False)
    settings = {"epochs": 1, "batch_size": 8, "alarm": ["a", "b"], "operating_points": ["sensitivity>=0.9"]}
    run = mmfusion.train(
        data,
        output=str(tmp_path / "run"),
        model={"name": "test_image"},
        processor={"image_size": 32},
        dataset={"group_column": "patient"},
        train=settings,
    )
    config = json.loads((run.best / "config.json").read_text())
    assert config["decisions"]["points"][0]["alarm"] == ["a", "b"] and config["decisions"]["by_group"] is not None
    assert "Operating points" in (run.best / "README.md").read_text()
    threshold = config["decisions"]["points"][0]["threshold"]
    rows = mmfusion.predict(data, model=[f"local-dir:{run.best}"])
    score = rows["p_a"] + rows["p_b"]
    clear = (score - threshold).abs() > 1e-5  # six digits are written
    assert (rows["alarm"] == np.where(score >= threshold, "yes", "no"))[clear].all() and clear.sum() > 20
    (told,) = run.predictor.predict([{"image": str(data / "case0.png")}])
    assert told["alarm"] == rows["alarm"].iloc[0]
    groups = mmfusion.predict(data, model=[f"local-dir:{run.best}"], by="group", pooling="max")
    assert len(groups) == table["patient"].nunique() and set(groups["id"]) == set(table["patient"])
    asked = {"operating_points": ["alarms<=500 per 1000"], "alarm": ["a"], "store": True, "prevalence": 0.1}
    found = mmfusion.evaluate(data, model=[f"local-dir:{run.best}"], by="group", output=str(tmp_path / "e"), **asked)
    assert found.n == table[table["split"] == "test"]["patient"].nunique()
    assert found.decisions.points[0].point.rule == "alarms<=500 per 1000"
    stored = mmfusion.Predictor.from_pretrained(f"local-dir:{run.best}").decisions
    assert stored.points == [each.point for each in found.decisions.points]
