"""Compiled models in training: the same files, and one compilation for all batches."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

import mmfusion
from mmfusion.training import RunConfig, checkpoints, train


@pytest.mark.slow
def test_a_compiled_run_ends_as_one_without_and_goes_on(
    make_config: Callable[..., RunConfig], graphs: list[Any]
) -> None:
    """Batches of 5 with a last one of 4; average, state and model are saved under their usual names."""
    options: dict[str, Any] = {"batch_size": 5, "ema": 0.9, "precision": "fp32"}
    plain = make_config("plain", model="plain", **options)
    train(plain)
    assert not graphs
    whole = make_config("whole", model="plain", **options, compile=True)
    train(whole)
    assert len(graphs) == 2  # in training and in evaluation
    killed = make_config("killed", model="plain", **options, compile=True, resume=True)
    shutil.copytree(whole.output, killed.output)
    shutil.rmtree(checkpoints.states(Path(killed.output) / "checkpoints")[-1])
    shutil.rmtree(Path(killed.output) / "last")
    train(killed)
    for file in ("last/model.safetensors", "checkpoints/checkpoint-10/model.safetensors"):
        expected, *others = (load_file(Path(run.output) / file) for run in (plain, whole, killed))
        for other in others:
            assert_close(other, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("compile", ["train", "predict"])
def test_without_a_compiler(compile: str, trained: RunConfig, make_config: Any, monkeypatch: Any) -> None:
    """The error comes before any row is read."""
    monkeypatch.setattr("mmfusion.hardware.has_accelerator", lambda: False)  # on CPUs it is needed
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(ValueError, match="compile needs the C\\+\\+ compiler no-such-compiler"):
        if compile == "train":
            train(make_config(compile=True))
        else:
            mmfusion.Predictor.from_pretrained(f"local-dir:{trained.output}/best", compile=True)
