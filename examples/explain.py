"""Explain the most confident correct and the most confident wrong prediction of each class.

    python examples/explain.py --run runs/ham10000 --data PATH

RUN is the folder of an evaluated run (with `predictions.csv`); PATH is its data set. The output has two figures per
class: one of a correct and one of a wrong prediction.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator
from pathlib import Path

import mmfusion
from mmfusion.explanation import explain_path


def surest(predictions: Path) -> Iterator[tuple[str, str]]:
    """(description, id) of the most confident right and wrong prediction of each true class."""
    with predictions.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if not row["error"] and row["true_label"]]
    rows.sort(key=lambda row: -float(row["probability"]))
    seen = set()
    for row in rows:
        kind = "right" if row["label"] == row["true_label"] else "wrong"
        if (row["true_label"], kind) not in seen:
            seen.add((row["true_label"], kind))
            yield f"{row['true_label']}, {kind}", row["id"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", required=True, help="run folder")
    parser.add_argument("--data", required=True, help="folder of the data set")
    parser.add_argument("--output", default="explanations", help="folder for the pictures")
    options = parser.parse_args()

    chosen = list(surest(Path(options.run, "predictions.csv")))
    predictor = mmfusion.Predictor.from_pretrained(f"local-dir:{options.run}")
    explain_path(predictor, options.data, options.output, rows=[id_ for _, id_ in chosen])
    for kind, id_ in sorted(chosen):
        print(f"{kind:<16} {id_}")


if __name__ == "__main__":
    main()
