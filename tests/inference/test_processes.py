"""``torchrun -m mmfusion predict``: rows split among processes, with the table of a single process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import mmfusion
from mmfusion.cli import main as cli
from mmfusion.data import Processor, fit_wordpiece

ROOT = Path(mmfusion.__file__).parents[1]


@pytest.fixture
def asked(toy: Path, tmp_path: Path) -> list[str]:
    """Arguments for predicting 32 rows with groups, one of them unreadable."""
    torch.manual_seed(0)
    processor = Processor(["a", "b", "c"], image_size=32, tokenizer=fit_wordpiece(["a red spot of years"], 64))
    model = mmfusion.create_model("test_concat", num_classes=3, processor=processor)
    mmfusion.save_pretrained(model, tmp_path / "model", processor)
    rows = [f"case{i}.png,{'' if i % 3 else 'a red spot ' * (1 + i % 4)},p{i // 2}" for i in range(31)]
    (tmp_path / "rows.csv").write_text("\n".join(["image,text,patient", *rows, "none.png,,p9"]) + "\n")
    read = ["--dataset.image_root", str(toy), "--batch_size", "3"]
    return ["predict", "--model", f"local-dir:{tmp_path / 'model'}", "--data", str(tmp_path / "rows.csv"), *read]


def torchrun(asked: list[str], *folders: Path) -> subprocess.CompletedProcess[str]:
    """Run the command in two processes, with the folders on their module path."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "mmfusion"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, [ROOT, *folders])), "OMP_NUM_THREADS": "1"}
    return subprocess.run([*command, *asked], env=env, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.slow
def test_two_processes_write_what_one_writes(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    assert cli.main([*asked, "--output", str(one)]) == 0
    job = torchrun([*asked, "--output", str(two)])
    assert job.returncode == 0, job.stderr
    assert two.read_bytes() == one.read_bytes() and len(one.read_text().splitlines()) == 33
    # printed once, as by one process
    assert job.stdout == capsys.readouterr().out.replace(str(one), str(two))


@pytest.mark.slow
def test_no_process_waits_for_one_that_died(asked: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    (tmp_path / "killed.py").write_text(
        "import os, signal\nfrom mmfusion.inference import processes\n"
        "def dealt(*_):\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "if os.environ['RANK'] == '1':\n    processes.Dealt = dealt\n"
    )
    job = torchrun([*asked, "--plugins", "killed", "--output", str(out)], tmp_path)
    assert job.returncode == 1 and f"Signal {signal.SIGKILL.value}" in job.stderr
    assert not out.exists()
