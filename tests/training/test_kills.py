"""Runs killed at every change of their folder and at random times, and runs with damaged files."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mmfusion.files import one_writer
from mmfusion.training import RunConfig, checkpoints, run, train
from mmfusion.training.run_folder import RunFolder

MakeConfig = Callable[..., RunConfig]
#: audit events that change a folder; the path is the first argument.
CHANGES = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")


def resumed(config: RunConfig) -> RunConfig:
    return replace(config, train=replace(config.train, resume=True))


def in_a_child(config: RunConfig, at: int | None = None, after: float | None = None) -> tuple[bool, int]:
    """Train in a forked process, killed before its ``at``-th change of the run folder, or after ``after`` seconds.

    Returns:
        Whether it came to its end, and how many changes it made then.
    """
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        changes = 0

        def count(event: str, args: Any) -> None:
            nonlocal changes
            if event not in CHANGES or (event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR)):
                return
            if config.output not in str(args[0]):
                return
            changes += 1
            if changes == at:
                if event == "os.rename" and os.path.isfile(args[0]) and changes % 2:
                    os.truncate(args[0], os.path.getsize(args[0]) // 2)  # as if it were half-written
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            sys.addaudithook(count)
            train(config)
            os.write(writing, str(changes).encode())
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
    os.close(writing)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    with os.fdopen(reading) as told:
        changes = int(told.read() or 0)
    assert status in (0, signal.SIGKILL), f"killed at {at} or after {after}: the run ended with an error"
    return status == 0, changes


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": x
        for name in ("best", "last")
        for key, x in load_file(folder / name / "model.safetensors").items()
    }


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_killed_runs_end_like_an_unbroken_one(make_config: MakeConfig, request: pytest.FixtureRequest) -> None:
    """Half of the kills are at changes of the run folder, half at random times; four per run."""
    options = {"loss": "mp", "epochs": 3, "save_steps": 4, "ema": 0.9}
    whole = make_config("whole", **options)
    began = time.monotonic()
    ended, changes = in_a_child(whole)
    seconds = time.monotonic() - began
    assert ended and changes > 50
    wanted, rng = weights(Path(whole.output)), random.Random(0)
    kills = request.config.getoption("--mutants") or 4
    points = [round((i + 0.5) * changes / -(-kills // 2)) for i in range(-(-kills // 2))]
    rng.shuffle(points)
    done, number = 0, 0
    while done < kills:
        number += 1
        config = make_config(f"killed-{number}", **options)
        for _ in range(4):
            aim: dict[str, Any] = {"at": points.pop()} if points else {"after": rng.uniform(0, seconds)}
            if done == kills or in_a_child(resumed(config), **aim)[0]:
                break
            done += 1
        assert in_a_child(resumed(config))[0]
        found = weights(Path(config.output))
        assert found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)
        left = [path.name for path in Path(config.output).rglob("*") if "partial" in path.name]
        assert not left, left
        shutil.rmtree(config.output)
        print(f"run {number}: {done} kills so far", flush=True)
    print(f"{done} kills in {number} runs, of which each made {changes} changes: all ended with equal weights")


def copied(trained: RunConfig, folder: Path) -> RunConfig:
    shutil.copytree(trained.output, folder)
    return resumed(replace(trained, output=str(folder)))


@pytest.mark.parametrize("name", ["config.yaml", "provenance.json"])
def test_an_empty_file_of_a_run_is_named(trained: RunConfig, tmp_path: Path, name: str) -> None:
    config = copied(trained, tmp_path / "run")
    (tmp_path / "run" / name).write_text("")
    with pytest.raises(ValueError, match=name):
        train(config)


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_best_model_that_is_gone_is_had_again(trained: RunConfig, tmp_path: Path, damage: str) -> None:
    config = copied(trained, tmp_path / "run")
    wanted = weights(tmp_path / "run")
    if damage == "gone":
        shutil.rmtree(tmp_path / "run/best")
    else:
        save_file({"a": torch.zeros(1)}, tmp_path / "run/best/model.safetensors")
    result = train(config)
    found = weights(tmp_path / "run")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert result.test == json.loads((Path(trained.output) / "metrics.json").read_text())


def test_a_best_model_older_than_all_states_is_not_made_up(monkeypatch: Any, tmp_path: Path) -> None:
    history = [{"epoch": epoch, "step": 6 * epoch, "accuracy": 1 / epoch} for epoch in (1, 2, 3)]

    def saved(state: Path) -> Any:
        step = int(state.name)
        return type("State", (), {"global_step": step}), [each for each in history if each["step"] <= step]

    monkeypatch.setattr(run, "_saved", saved)
    states, folder = [Path("18"), Path("15"), Path("6"), Path("3")], RunFolder(tmp_path)
    assert run._mending(states, folder, "accuracy") == Path("6")
    with pytest.raises(ValueError, match=r"later than its epoch 1; delete .*checkpoints to train"):
        run._mending(states[:2], folder, "accuracy")


def test_a_flipped_bit_in_a_state_is_found(trained: RunConfig, tmp_path: Path, capsys: Any) -> None:
    config = copied(trained, tmp_path / "run")
    state = checkpoints.complete(tmp_path / "run/checkpoints")[0]
    content = bytearray((state / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (state / "model.safetensors").write_bytes(content)
    wanted = weights(tmp_path / "run")
    capsys.readouterr()
    train(config)
    assert f"{state} changed since the run wrote it and is ignored" in capsys.readouterr().out
    found = weights(tmp_path / "run")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_two_trainings_in_one_folder_are_one(make_config: MakeConfig) -> None:
    config = make_config("run")
    with one_writer(config.output), pytest.raises(BlockingIOError, match="is being written by another process"):
        train(config)
    assert not Path(config.output).exists()
