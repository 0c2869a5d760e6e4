"""Peak memory of `mmfusion train` with more epochs and rows, and of `mmfusion predict` on a table of 50 columns.

Budget of training: at most 1.05 times the memory for four times the epochs or rows. Budget of prediction: at most 1.2
times the memory for ten times the rows.
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

BUDGET, STREAM_BUDGET = 1.05, 1.2
COLUMNS = 50
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


def write_columns(path: Path, rows: int) -> None:
    """A table of different measurements in every row, with a label and without images."""
    rng = np.random.default_rng(0)
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "label", *(f"value_{i}" for i in range(COLUMNS))])
        for row in range(rows):
            table.writerow([f"case-{row}", LABELS[row % len(LABELS)], *(f"{x:.6f}" for x in rng.normal(size=COLUMNS))])


def peak_mib(*arguments: str) -> float:
    """Peak resident memory of a command in its own process."""
    command = [sys.executable, "-m", "mmfusion", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: {' '.join(command)}")
    return usage.ru_maxrss / 1024


def stream(root: Path, rows: int) -> None:
    """Predict a table of ``rows`` rows and one of ten times as many."""
    write_columns(root / "train.csv", 300)
    model = ["--model.name", "table_mlp", "--dataset.table_columns", "auto", "--dataset.id_column", "id"]
    peak_mib("train", "--data", str(root / "train.csv"), "--output", str(root / "run"), *model, "--train.epochs", "1")
    baseline = 0.0
    for count in (rows, 10 * rows):
        write_columns(root / "cases.csv", count)
        data = ["--data", str(root / "cases.csv"), "--output", str(root / "out.csv"), "--batch_size", "1024"]
        peak = peak_mib("predict", "--model", f"local-dir:{root / 'run'}", *data)
        baseline = baseline or peak
        verdict = "" if peak / baseline <= STREAM_BUDGET else "over"
        name = f"{COLUMNS} columns"
        print(f"{name:<14}{count:>8}{'':>8}{peak:>10.0f}{peak / baseline:>8.3f}   {verdict}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="test_mibf")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--stream", type=int, default=10_000, help="rows of the smaller table to predict")
    parser.add_argument("--only_stream", action="store_true", help="leave the training runs out")
    parser.add_argument("--quick", action="store_true", help="60 rows, 1 epoch: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.epochs, options.stream = 60, 1, 60

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        stream(root, options.stream)
        if options.only_stream:
            return
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
            where = ["--data", str(root / data), "--output", str(root / f"run{number}")]
            peak = peak_mib("train", *where, "--model.name", options.model, "--train.epochs", str(epochs))
            baseline = baseline or peak
            verdict = "" if peak / baseline <= BUDGET else "over"
            print(f"{name:<14}{rows:>8}{epochs:>8}{peak:>10.0f}{peak / baseline:>8.3f}   {verdict}", flush=True)


if __name__ == "__main__":
    main()
