"""Peak memory of `mmfusion train` as epochs and rows grow.

Budget: four times the epochs or rows, at most 1.05 times the memory.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

BUDGET = 1.05
LABELS = ("a", "b", "c")


def write_cases(root: Path, rows: int) -> None:
    """Noise images of 64 px with a text and a label each."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    with open(root / "cases.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label", "text"])
        for row in range(rows):
            Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(root / "images" / f"{row}.png")
            table.writerow(
                [f"{row}.png", LABELS[row % len(LABELS)], f"patient {row % 90} years old, lesion on the back"]
            )


def peak_mib(data: Path, output: Path, model: str, epochs: int) -> float:
    """Highest resident memory of a training run in a process of its own."""
    command = [sys.executable, "-m", "mmfusion", "train"]
    command += ["--data", str(data), "--output", str(output), "--model.name", model, "--train.epochs", str(epochs)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"training ended with exit code {process.returncode}: {' '.join(command)}")
    return usage.ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="test_mibf")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="60 rows, 1 epoch: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.epochs = 60, 1

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cases(root / "few", options.rows)
        write_cases(root / "many", 4 * options.rows)
        runs = {
            "baseline": ("few", options.rows, options.epochs),
            "4 x epochs": ("few", options.rows, 4 * options.epochs),
            "4 x rows": ("many", 4 * options.rows, options.epochs),
        }
        print(f"{'':<14}{'rows':>8}{'epochs':>8}{'peak MiB':>10}{'ratio':>8}   budget {BUDGET}")
        baseline = 0.0
        for number, (name, (data, rows, epochs)) in enumerate(runs.items()):
            peak = peak_mib(root / data, root / f"run{number}", options.model, epochs)
            baseline = baseline or peak
            verdict = "" if peak / baseline <= BUDGET else "over"
            print(f"{name:<14}{rows:>8}{epochs:>8}{peak:>10.0f}{peak / baseline:>8.3f}   {verdict}", flush=True)


if __name__ == "__main__":
    main()
