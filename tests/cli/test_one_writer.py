"""Every command is refused in one line while another process writes to the same output."""

from __future__ import annotations

import shlex
from dataclasses import fields
from pathlib import Path
from pkgutil import resolve_name

import pytest
import torch

import mmfusion
from mmfusion.cli import main as cli
from mmfusion.cli.commands import COMMANDS
from mmfusion.data import Processor
from mmfusion.files import one_writer

#: command -> its options except ``--output``; TOY is a data set, RUN a saved model.
OPTIONS = {
    "demo": "",
    "auto": "--data TOY",
    "train": "--data TOY --model.name test_image",
    "evaluate": "--data TOY --model RUN",
    "predict": "--data TOY --model RUN",
    "validate": "--data TOY --model RUN",
    "embed": "--data TOY --model RUN",
    "explain": "--data TOY --model RUN",
    "compare": "--run.data TOY --run.model.name test_image --vary '{train.lr: [0.1, 0.2]}'",
    "sweep": "--run.data TOY --run.model.name test_image --space '{train.lr: [0.1, 0.2]}'",
    "narrate": "--data TOY --narrative.template {text}",
    "export": "--model RUN",
    "soup": "--models RUN RUN",
    "split": "--data TOY",
    "audit": "--data TOY",
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    processor = Processor(["a", "b", "c"], image_size=32)
    folder = tmp_path_factory.mktemp("saved") / "m"
    mmfusion.save_pretrained(mmfusion.create_model("test_image", processor=processor), folder, processor)
    return folder


def test_all_that_write_are_here() -> None:
    configs = {name: resolve_name(f"mmfusion.{command.config}") for name, command in COMMANDS.items()}
    assert {name for name, kind in configs.items() if "output" in {each.name for each in fields(kind)}} == {*OPTIONS}


@pytest.mark.parametrize("command", OPTIONS)
def test_the_second_is_refused(
    toy: Path, saved: Path, tmp_path: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    words = shlex.split(OPTIONS[command].replace("TOY", toy.as_posix()).replace("RUN", saved.as_posix()))
    with one_writer(output):
        assert cli.main([command, *words, "--output", str(output)]) == 2
        assert not output.exists()
    told = capsys.readouterr().err.splitlines()[-1]
    assert told.startswith(f"mmfusion {command}: error: {output} is being written by another process; wait until")
