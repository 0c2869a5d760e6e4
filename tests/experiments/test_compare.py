"""A complete study on a small data set: tables, restart, a diverged run, folds."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import mmfusion
from mmfusion.data import DatasetConfig, Processor, fit_wordpiece, read_cases
from mmfusion.evaluation.metrics import HEADLINE
from mmfusion.experiments import ExperimentConfig, compare, running
from mmfusion.experiments.cost import cost_of
from mmfusion.experiments.predictions import read_predictions
from mmfusion.inference.predictions_csv import prediction_writer
from mmfusion.inference.rows import AllRows
from mmfusion.inference.stream import Prediction
from mmfusion.models import save_model
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig


@pytest.fixture
def study(toy: Path, tmp_path: Path) -> ExperimentConfig:
    run = RunConfig(
        data=str(toy),
        model=ModelConfig(name="test_concat"),
        processor=ProcessorConfig(image_size=32, augment="none"),
        train=TrainConfig(
            epochs=1,
            batch_size=8,
            precision="fp32",
            freeze_encoders=True,
            feature_cache=str(tmp_path / "cache"),
        ),
    )
    return ExperimentConfig(
        run=run, vary={"model.fusion": ["gated"]}, seeds=[0, 1], output=str(tmp_path / "study"), replicates=50
    )


def test_a_study_and_its_second_start(
    study: ExperimentConfig,
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = compare(study)
    results = done.results
    assert [result.row.name for result in results] == ["base", "image alone", "text alone", "fusion=gated"]
    assert results[0].cases == 6 and results[0].seeds == [0, 1]
    output = Path(study.output)
    printed = capsys.readouterr().out + done.summary()
    text = (output / "results.md").read_text()
    assert text in printed and "[8/8] fusion=gated, seed 1: balanced_accuracy" in printed
    assert "vs. base: not judged: fewer than 3 seeds." in text and "Two seeds show little" in text
    table, runs = pd.read_csv(output / "results.csv"), pd.read_csv(output / "runs.csv")
    assert len(table) == 4 * len(HEADLINE) and len(runs) == 8
    own = runs[runs["row"] == "fusion=gated"]["accuracy"]
    line = table[(table["row"] == "fusion=gated") & (table["metric"] == "accuracy")].iloc[0]
    assert line["mean"] == pytest.approx(own.mean()) and line["low"] <= line["mean"] <= line["high"]
    # a row's cost is measured once
    assert runs["gflops"].notna().tolist() == [True, False] * 4
    assert (table["parameters"] > table["trained_parameters"]).all() and (table["gflops"] > 0).all()
    assert (output / "differences.png").read_bytes()[:4] == b"\x89PNG"
    left = sorted(path.name for path in (output / "runs/base/seed-0").iterdir())
    assert "result.json" in left and "predictions.csv" in left and not {"best", "last", "checkpoints"} & set(left)

    # a study that lost a run trains only that one, with the same metrics
    before = [result.figures for result in results]
    shutil.rmtree(output / "runs/base/seed-1")
    trained = []
    train = running.train
    monkeypatch.setattr(running, "train", lambda c, **kw: trained.append(c.output) or train(c, **kw))
    assert [result.figures for result in compare(study).results] == before
    assert trained == [str(output / "runs/base/seed-1")]
    assert " left" not in capsys.readouterr().out  # finished runs give no rate, and no run follows the new one
    with pytest.raises(ValueError, match=r"cannot be resumed with a different configuration: train\.lr"):
        compare(replace(study, base={"train.lr": 0.5}))
    # runs on other data do not count as finished either
    other = tmp_path / "other"
    shutil.copytree(toy, other)
    table = pd.read_csv(other / "cases.csv", keep_default_na=False)
    table.loc[0, "text"] = "a word more"
    table.to_csv(other / "cases.csv", index=False)
    with pytest.raises(ValueError, match=r"has runs on other data \(37 rows then, 37 now, or other labels"):
        compare(replace(study, data=str(other)))


def test_a_run_that_diverges_stops_no_other(study: ExperimentConfig) -> None:
    huge = {"train.lr": 1e30, "train.grad_clip": 0.0, "train.warmup_ratio": 0.0, "train.epochs": 2}
    results = compare(replace(study, vary={}, rows={"huge": huge}, seeds=[0], baselines=False)).results
    assert results[1].figures == {}
    text = (Path(study.output) / "results.md").read_text()
    assert "**huge**: every run failed (1 seed failed: The loss is" in text


def test_every_seed_is_measured_on_the_split_of_the_first(study: ExperimentConfig, toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "unsplit"
    shutil.copytree(toy, data)
    table = pd.read_csv(data / "cases.csv").drop(columns="split")
    table.to_csv(data / "cases.csv", index=False)
    results = compare(replace(study, data=str(data), baselines=False)).results
    assert results[0].seeds == [0, 1]
    ids = [set(pd.read_csv(path)["id"]) for path in Path(study.output).glob("runs/*/*/predictions.csv")]
    assert len(ids) == 4 and all(one == ids[0] for one in ids)


def test_cross_validation_tests_every_row_once(
    study: ExperimentConfig, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "folded"
    shutil.copytree(toy, data)
    table = pd.read_csv(data / "cases.csv").drop(columns="split")
    table["fold"] = [i // 3 % 3 for i in range(len(table))]
    table.loc[[33, 36], "fold"] = 3  # two rows of one class, which have no AUROC
    table.to_csv(data / "cases.csv", index=False)
    run = replace(study.run, data=str(data), dataset=DatasetConfig(fold_column="fold"))
    folded = replace(study, run=run, cross_validate=True, seeds=[0], baselines=False, metric="macro_auroc")
    results = compare(folded).results
    assert results[0].cases == len(table) and len(results[0].runs) == 4
    assert capsys.readouterr().out.count(": macro_auroc undefined (") == 2
    assert all(0 < row.figures["macro_auroc"].mean < 1 for row in results)
    with pytest.raises(ValueError, match=r"cross_validate needs dataset\.fold_column"):
        compare(replace(folded, run=replace(run, dataset=DatasetConfig())))


def test_each_hospital_is_left_out_in_turn(study: ExperimentConfig, toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "hospitals"
    shutil.copytree(toy, data)
    table = pd.read_csv(data / "cases.csv").drop(columns="split")
    table["hospital"] = [["north", "south"][i // 3 % 2] for i in range(len(table))]
    table["patient"] = [f"p{i}" for i in range(len(table))]
    table.loc[[0, 3], "patient"] = "both"  # a patient of two hospitals
    table.loc[5, "hospital"] = None
    table.to_csv(data / "cases.csv", index=False)
    run = replace(study.run, data=str(data), dataset=DatasetConfig(group_column="patient"))
    left_out = replace(study, run=run, vary={}, leave_out="hospital", seeds=[0], baselines=False)
    done = compare(left_out)
    counts = table["hospital"].value_counts()
    assert {site: rows[0].cases for site, rows in done.sites.items()} == counts.to_dict()
    assert done.results[0].cases == len(table) - 1  # each row with a hospital is tested on once
    ids = table["image"]
    for i, site in enumerate(sorted(counts.index)):
        split = pd.read_csv(Path(study.output, f"splits/{i}.csv"), dtype=str).set_index("id")["split"]
        assert set(split[split == "test"].index) == {*ids[table["hospital"] == site], *ids[[0, 3]]} and len(split) == 37
        patients = {part: set(table["patient"][ids.isin(split[split == part].index)]) for part in split.unique()}
        assert set(patients) == {"train", "val", "test"}
        assert not (patients["train"] | patients["val"]) & patients["test"]
    text = Path(study.output, "results.md").read_text()
    assert "## hospital left out of training" in text and f"| north | {counts['north']} | **base** (base) |" in text
    csv = pd.read_csv(Path(study.output, "results.csv"))
    north = csv[(csv["left_out"] == "north") & (csv["metric"] == "accuracy")].iloc[0]
    told = pd.read_csv(next(Path(study.output).glob("runs/*/*/fold-north/predictions.csv")))
    own = told[told["id"].isin(ids[table["hospital"] == "north"])]  # without the other row of the patient of both
    assert len(own) == len(told) - 1 == counts["north"]
    assert north["mean"] == pytest.approx((own["label"] == own["true_label"]).mean())
    with pytest.raises(ValueError, match="leave_out: there is no column 'hopsital'; did you mean 'hospital'"):
        compare(replace(left_out, leave_out="hopsital", output=str(tmp_path / "none")))
    with pytest.raises(ValueError, match=r"leave_out: 'patient' has \d+ values"):
        compare(replace(left_out, leave_out="patient", output=str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "acuracy"}, "metric must be one of accuracy, "),
        ({"seeds": [1, 1]}, "seeds must be distinct numbers"),
        ({"jobs": 0}, "jobs and replicates must be at least 1"),
        ({"alarm": ["cancer"]}, "alarm: the model has no class 'cancer'"),
        ({"alarm": ["a"], "benefit_thresholds": [1.0]}, "benefit_thresholds must be between 0 and 1"),
        ({"vary": {"model.fusion": ["gatde"]}}, "Unknown fusion 'gatde'; did you mean 'gated'"),
        ({"vary": {"train.loss": ["focl"]}}, "Unknown loss 'focl'; did you mean 'focal'"),
        ({"vary": {"train.epochs": [0]}}, "train.epochs must be at least 1; got 0."),
    ],
)
def test_a_study_is_refused_before_its_first_run(study: ExperimentConfig, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compare(replace(study, **change))
    assert not (Path(study.output) / "runs").exists()


@pytest.mark.slow
def test_two_jobs_give_what_one_gives(study: ExperimentConfig, tmp_path: Path) -> None:
    study = replace(study, baselines=False, seeds=[0])
    one = compare(study).results
    two = compare(replace(study, jobs=2, output=str(tmp_path / "two"))).results
    assert [result.figures for result in one] == [result.figures for result in two]


def test_classes_and_ids_that_look_like_nothing_are_rows(tmp_path: Path) -> None:
    with prediction_writer(tmp_path / "predictions.csv", ["None", "mild"], known=("true_label",)) as write:
        write(
            ["NA", "2", "3", "4"],
            Prediction(0, np.log([[0.75, 0.25]] * 3 + [[np.nan] * 2]), [None, None, None, "bad"], ["image"] * 4),
            {"true_label": ["None", "mild", "", "mild"]},
        )
    found, groups = read_predictions([tmp_path])
    assert found.ids == ["NA", "2"] and found.labels.tolist() == [0, 1]
    assert found.probabilities.tolist() == [[0.75, 0.25]] * 2 and groups == {}


def saved(folder: Path, name: str, **parts: Any) -> tuple[Path, Processor]:
    """A saved model and its processor, for the toy data."""
    model = mmfusion.create_model(name, num_classes=3, **parts)
    tokenizer = fit_wordpiece(["a red green blue spot, patient of 30 years"], 128)
    size = 32 if model.image_tower is not None else None
    processor = Processor(["a", "b", "c"], image_size=size, tokenizer=tokenizer)
    processor.save_pretrained(folder)
    return save_model(model, folder), processor


def test_cost_counts_the_products_of_attention(toy: Path, tmp_path: Path) -> None:
    width, inner = 32, 64
    config = {"model_type": "bert", "vocab_size": 128, "hidden_size": width, "num_hidden_layers": 1}
    config |= {"num_attention_heads": 2, "intermediate_size": inner}
    folder, processor = saved(tmp_path / "m", "test_text", text_args={"config": config}, head="linear", head_args={})
    run = RunConfig(data=str(toy))
    cases = read_cases(toy, run.dataset).select("test")
    length = processor.collate(list(AllRows(cases, processor)))["input_ids"].shape[1]
    by_hand = 4 * width * width + 2 * width * inner + 2 * length * width
    assert cost_of(folder, run)["gflops"] * 1e9 == pytest.approx(2 * (length * by_hand + 3 * width))


@pytest.mark.slow
def test_cost_counts_recurrences_and_passes_over_bad_rows(toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    (data / "case31.png").write_bytes((data / "case31.png").read_bytes()[:60])  # the first test row
    run = RunConfig(data=str(data), dataset=DatasetConfig(on_bad_row="skip"))
    small = {"image_encoder": "test_resnet", "text_encoder": "bert_tiny", "text_args": {"vocab_size": 128}}
    folder, _ = saved(tmp_path / "m", "bilstm_lite0", **small)
    other, _ = saved(tmp_path / "n", "bilstm_lite0", aggregator="mean", **small)
    lstm = mmfusion.create_model(f"local-dir:{folder}").image_tower.aggregator.forward_layers[0]
    by_hand = 2 * 2 * 4 * lstm.hidden_size * (lstm.input_size + lstm.hidden_size)  # both directions, one slice
    wider_head = 2 * (2 * lstm.hidden_size - lstm.input_size) * 256
    difference = cost_of(folder, run)["gflops"] - cost_of(other, run)["gflops"]
    assert difference * 1e9 == pytest.approx(by_hand + wider_head, rel=0.02)
