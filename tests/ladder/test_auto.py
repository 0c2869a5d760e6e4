"""`mmfusion auto`: its steps, those skipped for lack of time, resuming, and output."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import mmfusion
from mmfusion.cli.main import main
from mmfusion.data import DatasetConfig, make_demo, read_cases
from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.evaluation.measure import BOOTSTRAP
from mmfusion.files import write_json
from mmfusion.ladder import AutoConfig, regression, run, rungs
from mmfusion.ladder.clock import Clock, LeftOutError, Pace, TimeLimit, in_words
from mmfusion.ladder.leaderboard import Entry
from mmfusion.training import ModelConfig, ProcessorConfig, TrainConfig, train
from mmfusion.training.build import with_task
from mmfusion.training.columns import ChosenColumns


def config(data: Any, output: Path, **settings: Any) -> AutoConfig:
    """Options with networks that train in about a second."""
    given: dict[str, Any] = {
        "model": ModelConfig(name="test_mibf"),
        "processor": ProcessorConfig(image_size=32, augment="none"),
        "train": TrainConfig(epochs=1, batch_size=8, precision="fp32", metric="macro_auroc"),
    }
    return AutoConfig(data=str(data), output=str(output), **given | settings)


@pytest.mark.parametrize(("text", "seconds"), [("45s", 45), ("20m", 1200), ("1h30m", 5400), ("0.5h", 1800), (90, 90)])
def test_times(text: str | float, seconds: float) -> None:
    assert AutoConfig("d", time_limit=text).seconds == seconds


@pytest.mark.parametrize("text", ["soon", "", "0", "5 parsecs"])
def test_no_times(text: str) -> None:
    with pytest.raises(ValueError, match="time_limit"):
        AutoConfig("d", time_limit=text)


def test_a_clock_of_ones_own() -> None:
    now = [100.0]
    clock = Clock(60, now=lambda: now[0])
    now[0] = 145.0
    assert (clock.spent, clock.left) == (45, 15)
    clock.check(14)
    with pytest.raises(LeftOutError):
        clock.check(15)
    assert [in_words(seconds) for seconds in (-3, 45, 720, 9000)] == ["0 s", "45 s", "12 min", "2.5 h"]


def test_epochs_are_planned_from_a_step_and_learned_from_a_run() -> None:
    pace = Pace(fixed=10)
    epoch = pace.epoch(step=0.5, steps=40, val_steps=10)
    assert epoch == pytest.approx(0.5 * (40 + 0.4 * 10))
    # nine tenths of the remaining time, minus the fixed part
    assert pace.epochs(20, budget=110, most=40) == 4
    assert [pace.epochs(20, budget=budget, most=3) for budget in (110, 31, 22, 21, 9, -50)] == [3, 1, 1, 0, 0, 0]
    # a machine with a slow start is also slow to save and evaluate
    assert [Pace.after(seconds).fixed for seconds in (0, 10, 60)] == [5, 5, pytest.approx(24)]
    pace.learn(foretold=20, real=30, fixed=4)
    assert (pace.factor, pace.fixed, pace.epoch(0.5, 40, 10)) == (1.5, 4, pytest.approx(33))


def test_a_run_ends_in_mid_epoch_with_what_it_has(toy: Path, tmp_path: Path) -> None:
    ladder = config(toy, tmp_path)
    how = replace(ladder.train, epochs=3, batch_size=4)
    settings = replace(ladder.run(), dataset=DatasetConfig(), output=str(tmp_path / "r"), train=how)
    # each step takes a second: 10 are left after the fourth of six steps
    now, lines = [0.0], list[str]()
    clock = Clock(14, now=lambda: now[0])

    class Limit(TimeLimit):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now[0] += 1
            super().on_step_end(*args, **kwargs)

    done = train(settings, judged_on=("val",), callbacks=[Limit(clock, 6, lines.append, "macro_auroc")])
    assert [(record["epoch"], record["step"]) for record in done.history] == [(1, 6), (2, 8)]
    assert done.split == "val" and done.test is None and (done.best / "config.json").is_file()
    assert lines[0].startswith("epoch 1 of 3: macro_auroc 0.") and lines[0].endswith(", 8 s left")
    assert lines[1].startswith("epoch 1.33 of 3") and lines[1].endswith(", 6 s left; stopped by the limit")
    # the mean loss is that of the finished steps, and the run does not continue
    assert done.history[1]["train_loss"] == pytest.approx(done.history[0]["train_loss"], rel=0.5)
    again = train(replace(settings, train=replace(settings.train, resume=True)), judged_on=("val",))
    assert again.history == done.history and again.best_epoch == done.best_epoch


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_the_logistic_regression(classes: int) -> None:
    model = mmfusion.create_model("test_image", num_classes=classes, head="linear").eval()
    pixels = torch.randn(40, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        x = model.forward_features(pixels).pooled.double().numpy()
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-3
    fitted = LogisticRegression(C=0.1, max_iter=1000).fit((x - mean) / scale, np.arange(40) % classes)
    regression.into_head(model, fitted, mean, scale)
    with torch.inference_mode():
        found = model(pixels).logits.double().softmax(-1).numpy()
    expected = fitted.predict_proba((x - mean) / scale)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected) > 0.1


def table(rows: int = 60) -> pd.DataFrame:
    """Columns only; ``age`` depends on the class."""
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % 2
    age = 40 + 12 * labels + rng.normal(0, 9, rows)
    split = np.where(np.arange(rows) % 10 < 6, "train", np.where(np.arange(rows) % 10 < 8, "val", "test"))
    site = rng.choice(["back", "face"], rows)
    return pd.DataFrame({"age": age.round(2), "site": site, "label": np.array(["a", "b"])[labels], "split": split})


def images(toy: Path, **columns: Any) -> pd.DataFrame:
    frame = pd.read_csv(toy / "cases.csv").drop(columns="text")
    return frame.assign(image=[str(toy / name) for name in frame["image"]], **columns)


@pytest.mark.parametrize(
    ("data", "names", "frozen", "parts"),
    [
        ("table", ["columns"], None, (None, None)),
        ("images", ["image"], "image", ("test_resnet", None)),
        ("images and columns", ["image", "fusion"], "image", ("test_resnet", None)),
        ("images and text", ["image", "fusion"], "image", ("test_resnet", "bert_tiny")),
    ],
)
def test_networks_of_what_the_rows_hold(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str, names: list[str], frozen: Any, parts: Any
) -> None:
    monkeypatch.setattr(rungs, "_is_random", lambda run, modality: False)
    ages = [20.5 + 37 * i % 23 for i in range(37)]
    source: Any = {
        "table": lambda: table(),
        "images": lambda: images(toy),
        "images and columns": lambda: images(toy, age=ages),
        "images and text": lambda: toy,
    }[data]()
    base = AutoConfig(source, model=ModelConfig(name="mibf_lite0", image_encoder="test_resnet")).run()
    base = mmfusion.settings.with_settings(base, run.WITHOUT["image"]) if data == "table" else base
    cases = read_cases(base.data, base.dataset)
    found = rungs.plan_networks(base, cases)
    assert list(found.tuned) == names
    full = rungs.resolve_config(base.model.name, **found.tuned[names[-1]].model.overrides())
    assert (full["image_encoder"], full["text_encoder"]) == parts
    assert found.tuned[names[-1]].dataset.reads_columns == ("columns" in data or data == "table")
    if frozen is None:
        assert found.frozen is None
    else:
        assert found.frozen is not None and found.frozen.train.freeze_encoders
        assert (found.frozen.model.head, found.frozen.model.text_encoder) == ("linear", "none")
    assert found.told[-1] == f"the networks use {data.replace('images', 'image').replace('table', 'columns')}"


def test_climbing_going_on_and_refusing(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(rungs, "_is_random", lambda run, modality: False)
    wanted, slow = config(toy, tmp_path / "auto", train=TrainConfig(1, 8, metric="macro_auroc", ema=0.9)), [1e6]
    steps, trained, real = rungs.seconds_of_step, list[str](), run.train
    monkeypatch.setattr(run, "seconds_of_step", lambda *args, **kw: slow.pop() if slow else steps(*args, **kw))
    monkeypatch.setattr(run, "train", lambda c, **kw: trained.append(Path(c.output).name) or real(c, **kw))
    first = run.auto(replace(wanted, time_limit="0.5h"))
    told = {entry.name: entry.about for entry in first.entries}
    assert (
        told["logistic_regression"].startswith("skipped: it takes about ") and "are left" in told["logistic_regression"]
    )
    assert told["gradient_boosting"] == "skipped: there are no columns"
    assert trained == ["image", "fusion"] and first.winner in ("image", "fusion", "ensemble")

    # figures of the class shares, by hand
    prior = next(entry for entry in first.entries if entry.name == "prior")
    assert prior.intervals is not None and prior.intervals["macro_auroc"].value == 0.5
    assert prior.intervals["nll"].value == pytest.approx(np.log(3))
    labels = [0, 1, 2, 0, 1, 2, 0]
    expected = metric_intervals(labels, np.full((7, 3), 1 / 3), **BOOTSTRAP)["balanced_accuracy"]
    assert prior.intervals["balanced_accuracy"] == expected

    # skipped steps are tried again, finished ones are not
    capsys.readouterr()
    second = run.auto(wanted)
    assert trained == ["image", "fusion"] and "fusion: macro_auroc" in (out := capsys.readouterr().out)
    assert "audited before" in out and out.count("(done before)") == 4
    values = {entry.name: entry.intervals for entry in second.entries if entry.intervals is not None}
    assert {name: values[name] for name in ("prior", "image", "fusion")} == {
        entry.name: entry.intervals for entry in first.entries if entry.name in ("prior", "image", "fusion")
    }
    assert values.keys() == {"prior", "logistic_regression", "image", "fusion", "ensemble"}
    board = pd.read_csv(tmp_path / "auto/leaderboard.csv")
    assert board["name"].tolist() == [entry.name for entry in second.entries]
    known = board["macro_auroc"].dropna()
    assert known.is_monotonic_decreasing and (board["macro_auroc_low"].dropna() <= known).all()

    # the winner is an ordinary model, evaluated once on the test rows
    assert second.winner is not None and second.test is not None and second.test.n == 6
    networks = [entry.name for entry in second.entries if entry.is_network and entry.intervals is not None]
    assert (second.winner == networks[0] and second.predictor.metrics is not None) or second.winner == "ensemble"
    assert f"winner: {second.winner}" in second.summary() and "winner on 6 test rows" in second.summary()
    told_test = (tmp_path / "auto/steps" / second.winner / "test/metrics.json").stat().st_mtime_ns
    run.auto(wanted)
    assert (tmp_path / "auto/steps" / second.winner / "test/metrics.json").stat().st_mtime_ns == told_test

    with pytest.raises(ValueError, match=r"has another auto \(different: train.lr\)"):
        run.auto(replace(wanted, train=replace(wanted.train, lr=0.5)))
    other = shutil.copytree(toy, tmp_path / "other")
    frame = pd.read_csv(other / "cases.csv", keep_default_na=False)
    frame.loc[0, "text"] = "a word more"
    frame.to_csv(other / "cases.csv", index=False)
    with pytest.raises(ValueError, match="has runs on other data"):
        run.auto(replace(wanted, data=str(other)))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious.txt").touch()
    with pytest.raises(FileExistsError, match="choose another --output"):
        run.auto(replace(wanted, output=str(tmp_path / "mine")))


def test_a_table_in_memory_without_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = mmfusion.auto(
        table(200),
        output=tmp_path / "auto",
        model={"name": "table_mlp"},
        train={"epochs": 2, "batch_size": 4, "gradient_accumulation": 2, "ema": None, "precision": "fp32"},
    )
    names = [entry.name for entry in found.entries if entry.intervals is not None]
    assert set(names) == {"prior", "gradient_boosting", "columns"} and found.winner == "columns"
    boosted = next(entry for entry in found.entries if entry.name == "gradient_boosting")
    assert boosted.intervals is not None and (boosted.intervals["macro_auroc"].value or 0) > 0.6
    assert boosted.about == "scikit-learn's, on age, site"
    trained = next(entry for entry in found.entries if entry.name == "columns")
    assert trained.about.endswith(" of 2")  # not stopped, though there are half as many steps as batches
    assert found.predictor.predict_proba(table(4)).shape == (4, 2)
    assert "ensemble: skipped: it needs two networks" in capsys.readouterr().out


def test_an_ensemble_of_other_networks_gives_way(tmp_path: Path) -> None:
    base = AutoConfig(table(), train=TrainConfig(metric="macro_auroc")).run()
    cases = read_cases(base.data, base.dataset)
    tuned = dict.fromkeys(("image", "fusion"), base)
    ladder = run.Ladder(base, tmp_path, cases, rungs.Networks(ChosenColumns(), None, tuned, []), Clock(0), True)
    for name in (*tuned, "ensemble"):
        ladder._reference(tmp_path / "steps" / name, np.full((12, 2), 0.5))
        told = {"seconds": 1.0, "about": name, "members": ["image", "logistic_regression"]}
        write_json(tmp_path / "steps" / name / "result.json", told)
    for name in tuned:
        ladder._rung(name, name, True, lambda folder: {})
    ladder._ensemble_rung()
    assert ladder.entries[-1] == Entry("ensemble", "skipped: the time limit is reached", True)
    assert not (tmp_path / "steps" / "ensemble").exists()


def test_a_slow_step_is_measured_once_and_the_measuring_counts(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = with_task(config(toy, tmp_path, dataset=DatasetConfig()).run())
    cases = read_cases(base.data, base.dataset)
    seconds = iter([0.0, 0.0, 7.0, 7.0])
    # the first step took 7 s, which is enough
    assert rungs.seconds_of_step(base, cases, enough=5, now=lambda: next(seconds)) == 7
    now, given = [0.0], dict[str, Any]()
    tuned = {"image": base, "fusion": base}
    ladder = run.Ladder(base, tmp_path, cases, rungs.Networks(ChosenColumns(), None, tuned, []), Clock(60), True)
    ladder.clock = Clock(60, now=lambda: now[0])

    def measured(*args: Any, **kwargs: Any) -> float:
        now[0] += 20
        return 0.5

    def stopped(config: Any, *, callbacks: list[TimeLimit], **kwargs: Any) -> None:
        given.update(epochs=config.train.epochs, until=callbacks[0].until)
        raise FloatingPointError("enough seen")

    monkeypatch.setattr(run, "seconds_of_step", measured)
    monkeypatch.setattr(run, "train", stopped)
    with pytest.raises(LeftOutError, match="enough seen"):
        ladder._network("fusion", "about", base, tmp_path / "steps" / "fusion")
    # of 60 s, 10 are for ensemble and test rows, 5 for the end of the run, and the rest includes the last validation
    assert given["until"] == pytest.approx(10 + 5 + 0.5 * 0.4 * 7 / 8)
    now[0] = 42
    with pytest.raises(LeftOutError, match="one epoch takes about"):
        ladder._network("fusion", "about", base, tmp_path / "steps" / "other")
    now[0] = 46
    with pytest.raises(LeftOutError, match="only 14 s left"):
        ladder._network("fusion", "about", base, tmp_path / "steps" / "other")


def test_time_that_is_over_before_the_first_rung_is_said(toy: Path, tmp_path: Path) -> None:
    wanted = config(toy, tmp_path / "auto", time_limit="20s")
    wanted.began -= 21
    with pytest.raises(
        TimeoutError, match=r"The time limit of 20 s is reached: reading .* took until 21 s, and no model"
    ):
        run.auto(wanted)
    assert not (tmp_path / "auto/audit").exists()


def test_no_validation_rows(tmp_path: Path) -> None:
    frame = table()
    with pytest.raises(ValueError, match="no rows of the split 'val', needed to select models"):
        run.auto(AutoConfig(frame[frame["split"] != "val"], output=str(tmp_path / "auto")))


@pytest.mark.slow
def test_the_demo_data_in_45_seconds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, output = make_demo(tmp_path / "demo", n=300), tmp_path / "auto"
    words = ["auto", "--data", str(data), "--output", str(output), "--time_limit", "45s"]
    words += ["--dataset.group_column", "patient_id", "--processor.image_size", "48"]
    assert main(words) == 0
    out = capsys.readouterr().out
    board = pd.read_csv(output / "leaderboard.csv").set_index("name")
    assert board.index[-1] not in ("prior", "gradient_boosting") or board["macro_auroc"].notna().all()
    assert board.loc["prior", "macro_auroc"] == 0.5 and "leaderboard: " in out
    # a busy machine may have had no time for a network, and says so
    if "winner: " in out:
        assert (
            main(["evaluate", "--model", str(output / "best"), "--data", str(data), "--output", str(tmp_path / "e")])
            == 0
        )
    else:
        assert out.count("skipped") >= 4
