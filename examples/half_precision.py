"""A trained model as a copy of half the size, measured again with the rounded weights.

    python examples/half_precision.py --model local-dir:runs/mibf_lite0_ham10000 --data DIR --output runs/small

The shipped weights `mibf_lite0.ham10000` were made so. DIR is the data set that the model was trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from mmfusion.evaluation.measure import measure
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.split import read_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="trained model, e.g. local-dir:runs/first")
    parser.add_argument("--data", required=True, help="the data set that it was trained on")
    parser.add_argument("--output", required=True, type=Path, help="folder for the copy")
    parser.add_argument("--split", default="test", help="rows to measure it on")
    options = parser.parse_args()

    Predictor.from_pretrained(options.model).save_pretrained(options.output, dtype=torch.float16)

    small = Predictor.from_pretrained(f"local-dir:{options.output}")
    cases = read_split(
        options.data, options.split, dataset=small.dataset, labels=small.labels, provenance=small.provenance
    )
    found = measure(small, cases)
    metrics = found.to_dict() | {"split": options.split}
    small.save_pretrained(options.output, metrics, dtype=torch.float16)
    print(", ".join(f"{name} {value:.4f}" for name, value in found.figures.items() if value is not None))
    size = (options.output / "model.safetensors").stat().st_size
    print(f"{size / 1e6:.1f} MB of weights in {options.output}")


if __name__ == "__main__":
    main()
