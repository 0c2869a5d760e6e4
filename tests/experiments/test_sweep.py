"""A search finds a planted optimum, and a resumed one has the same result."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from mmfusion.data import DatasetConfig
from mmfusion.experiments import SweepConfig, search, sweep
from mmfusion.training import ModelConfig, RunConfig

SPACE = {"train.lr": {"low": 1e-5, "high": 1.0, "log": True}, "train.batch_size": {"low": 2, "high": 8}}


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """Replacement of training: the metric is best at a learning rate of 1e-3."""
    seen: list[RunConfig] = []

    def run_once(config: RunConfig, **_: Any) -> dict[str, Any]:
        seen.append(config)
        if config.train.lr > 0.3:
            return {"error": "The loss is nan", "seconds": 0.0}
        accuracy = 1 - abs(math.log10(config.train.lr) + 3) / 10
        return {"val": {"balanced_accuracy": accuracy}, "figures": {"accuracy": accuracy - 0.1}, "seconds": 0.0}

    monkeypatch.setattr(search, "run_once", run_once)
    return seen


def config(output: Path, data: Path, **settings: Any) -> SweepConfig:
    run = RunConfig(data=str(data), model=ModelConfig(name="test_concat"))
    return SweepConfig(**{"run": run, "space": SPACE, "trials": 25, "output": str(output), **settings})


def test_it_finds_the_best_rate(
    tmp_path: Path, toy: Path, runs: list[RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    found = sweep(config(tmp_path / "s", toy))
    best = found.best
    assert len(runs) == 25 and abs(math.log10(best.train.lr) + 3) < 0.4
    assert len({run.output for run in runs}) == 25
    assert {type(run.train.batch_size) for run in runs} == {int}
    saved = yaml.safe_load((tmp_path / "s/best.yaml").read_text())
    assert saved["train"]["lr"] == best.train.lr and saved["output"] == str(tmp_path / "s/best")
    assert len(pd.read_csv(tmp_path / "s/trials.csv")) == 25
    assert "[25/25] train.lr=" in capsys.readouterr().out
    assert f"val balanced_accuracy {found.value:.4f}; its test rows: accuracy" in found.summary()


def test_a_stopped_sweep_ends_like_one_that_was_not(
    tmp_path: Path, toy: Path, runs: list[RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep(config(tmp_path / "whole", toy))
    whole = [run.train for run in runs]
    runs.clear()
    run_once = search.run_once

    def stopped(run: RunConfig, **kwargs: Any) -> dict[str, Any]:
        if len(runs) == 12:
            raise KeyboardInterrupt
        return run_once(run, **kwargs)

    monkeypatch.setattr(search, "run_once", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(config(tmp_path / "stopped", toy))
    monkeypatch.setattr(search, "run_once", run_once)
    sweep(config(tmp_path / "stopped", toy))
    assert [run.train for run in runs] == whole
    before = len(runs)
    sweep(config(tmp_path / "stopped", toy))
    assert len(runs) == before
    with pytest.raises(ValueError, match=r"has another sweep \(different: seed\)"):
        sweep(config(tmp_path / "stopped", toy, seed=1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"space": {}}, "The sweep has no space"),
        ({"space": {"train.lr": {"low": 0.0, "high": 1.0, "log": True}}}, "space.train.lr must be a list of choices"),
        ({"space": {"train.lr": {"low": 2.0, "high": 1.0}}}, "space.train.lr must be a list of choices"),
        ({"space": {"train.lrr": [1.0]}}, "Unknown setting 'train.lrr'"),
        ({"space": {"model.fusion": ["concat", "gatde"]}}, "Unknown fusion 'gatde'"),
        ({"trials": 0}, "trials must be at least 1"),
        ({"metric": "acc"}, "metric must be one of"),
    ],
)
def test_a_sweep_is_refused_before_its_first_trial(
    tmp_path: Path, toy: Path, runs: list[RunConfig], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        sweep(config(tmp_path / "s", toy, **settings))
    assert runs == []


@pytest.mark.parametrize("damaged", [False, True])
def test_images_are_checked_once_and_not_believed_where_one_is_bad(
    tmp_path: Path, toy: Path, monkeypatch: pytest.MonkeyPatch, damaged: bool
) -> None:
    data, checked = tmp_path / "data", []
    shutil.copytree(toy, data)
    if damaged:
        (data / "case3.png").write_bytes((data / "case3.png").read_bytes()[:60])

    def run_once(config: RunConfig, **options: Any) -> dict[str, Any]:
        checked.append(options["images_checked"])
        return {"val": {"balanced_accuracy": 0.5}, "figures": {"accuracy": 0.5}, "seconds": 0.0}

    monkeypatch.setattr(search, "run_once", run_once)
    run = RunConfig(data=str(data), model=ModelConfig(name="test_concat"), dataset=DatasetConfig(on_bad_row="skip"))
    sweep(SweepConfig(run=run, space=SPACE, trials=3, output=str(tmp_path / "s")))
    assert checked == [not damaged] * 3
