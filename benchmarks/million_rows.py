"""Peak memory of `mmfusion predict` and `mmfusion evaluate` on tables of up to a million rows.

Repeated small images, an id, a label and a text per row, and a tiny model. Rows are encoded and predicted batch by
batch; only the table and, for metrics, the probabilities grow with the rows. Budget: 2 KiB per row.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

BUDGET = 2.0
IMAGES, SIZE, LABELS = 64, 16, ("a", "b", "c")


def write_table(root: Path, name: str, rows: int) -> None:
    with (root / name).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "image", "label", "text", "split"])
        for row in range(rows):
            text = f"patient {row % 90} years old, lesion on the back"
            table.writerow([f"case-{row}", f"{row % IMAGES}.png", LABELS[row % 3], text, "test"])


def run(*arguments: str) -> tuple[float, float]:
    """Peak resident memory (KiB) and seconds of a command in its own process."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "mmfusion", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode}: mmfusion {' '.join(arguments)}")
    return float(usage.ru_maxrss), time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--quick", action="store_true", help="100 and 400 rows: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rows = [100, 400]

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rng = np.random.default_rng(0)
        for i in range(IMAGES):
            Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)).save(root / f"{i}.png")
        with (root / "train.csv").open("w", newline="") as file:
            table = csv.writer(file)
            table.writerows([["image", "label", "text"], *([f"{i}.png", LABELS[i % 3], "a text"] for i in range(48))])
        common = ["--processor.image_size", "32", "--processor.augment", "none", "--train.epochs", "1"]
        run(
            "train",
            "--data",
            str(root / "train.csv"),
            "--output",
            str(root / "run"),
            "--model.name",
            "test_concat",
            *common,
        )
        model = f"local-dir:{root / 'run'}"
        print(
            f"{'command':<10}{'rows':>10}{'peak MiB':>10}{'KiB / row':>11}{'rows / s':>10}   budget {BUDGET} KiB / row"
        )
        for command in ("predict", "evaluate"):
            first: tuple[int, float] | None = None
            for rows in options.rows:
                write_table(root, "cases.csv", rows)
                target = ["--output", str(root / ("out.csv" if command == "predict" else "out"))]
                split = [] if command == "predict" else ["--split", "all"]
                columns = ["--dataset.id_column", "id"]
                peak, spent = run(
                    command, "--model", model, "--data", str(root / "cases.csv"), *target, *split, *columns
                )
                growth = "" if first is None else f"{(peak - first[1]) / (rows - first[0]):.2f}"
                first = first or (rows, peak)
                verdict = "over" if growth and float(growth) > BUDGET else ""
                print(
                    f"{command:<10}{rows:>10,}{peak / 1024:>10.0f}{growth:>11}{rows / spent:>10.0f}   {verdict}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
