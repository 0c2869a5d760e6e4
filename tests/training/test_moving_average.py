"""The moving average of the weights: its values, its uses, and resuming."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from test_run import assert_same_run
from torch import nn

from mmfusion.training import RunConfig, checkpoints, train
from mmfusion.training.moving_average import MovingAverage


def test_the_average_is_its_recursion() -> None:
    """a_t = d_t a_(t-1) + (1 - d_t) w_t with d_t = min(decay, (t - 1) / (t + 3)), of weights and running statistics."""
    layer = nn.BatchNorm1d(1)
    average = MovingAverage(layer, 0.7)
    expected = expected_mean = 0.0
    for step in range(1, 30):
        with torch.no_grad():
            layer.weight.fill_(step**0.5)
            layer.running_mean.fill_(-step)
            layer.num_batches_tracked.fill_(step)
        average.on_step_end(None, SimpleNamespace(global_step=step), None)
        decay = min(0.7, (step - 1) / (step + 3))
        expected = decay * expected + (1 - decay) * step**0.5
        expected_mean = decay * expected_mean - (1 - decay) * step
    with average.applied(), average.applied():
        assert layer.weight.item() == pytest.approx(expected, rel=1e-5)
        assert layer.running_mean.item() == pytest.approx(expected_mean, rel=1e-5)
    assert layer.weight.item() == pytest.approx(29**0.5) and layer.num_batches_tracked.item() == 29


def test_what_is_saved_is_the_average(make_config: Callable[..., RunConfig]) -> None:
    """``last`` has the average, the resumable state both, and validation metrics use the average."""
    config = make_config("run", model="plain", ema=0.9)
    train(config)
    state = Path(config.output) / "checkpoints/checkpoint-12"
    saved = load_file(Path(config.output) / "last/model.safetensors")
    average, weights = load_file(state / "average.safetensors"), load_file(state / "model.safetensors")
    assert all(torch.equal(saved[name], average[f"model.{name}"]) for name in saved)
    assert not any(torch.equal(saved[name], weights[f"model.{name}"]) for name in saved if name.endswith("weight"))
    plain = make_config("plain", model="plain")
    train(plain)
    trained = load_file(Path(plain.output) / "last/model.safetensors")
    assert all(torch.equal(trained[name], weights[f"model.{name}"]) for name in trained)  # training is unchanged


def test_without_validation_rows_the_average_is_what_is_saved(
    make_config: Callable[..., RunConfig], toy: Path, tmp_path: Path
) -> None:
    shutil.copytree(toy, tmp_path / "data")
    table = tmp_path / "data/cases.csv"
    kept = [line for line in table.read_text().splitlines() if not line.endswith(("val", "test"))]
    table.write_text("\n".join(kept) + "\n")
    config = make_config("run", model="plain", ema=0.9, epochs=1)
    config.data = str(tmp_path / "data")
    train(config)
    best = load_file(Path(config.output) / "best/model.safetensors")
    average = load_file(Path(config.output) / "checkpoints/checkpoint-6/average.safetensors")
    assert all(torch.equal(best[name], average[f"model.{name}"]) for name in best)


def test_a_killed_run_goes_on_with_average_and_frozen_stages(make_config: Callable[..., RunConfig]) -> None:
    options: dict[str, Any] = {"ema": 0.9, "freeze_stages": 2, "freeze_norm": True, "save_steps": 4, "loss": "mp"}
    whole, killed = make_config("whole", **options), make_config("killed", **options, resume=True)
    train(whole)
    shutil.copytree(whole.output, killed.output)
    states = Path(killed.output) / "checkpoints"
    shutil.rmtree(checkpoints.states(states)[-1])
    shutil.rmtree(Path(killed.output) / "last")
    train(killed)
    assert_same_run(killed.output, whole.output)
