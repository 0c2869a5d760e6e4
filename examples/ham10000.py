"""Train three models on one split of HAM10000 (image, text, both), and evaluate each on the test rows.

    python examples/ham10000.py --data PATH

PATH contains `metadata.csv` and `images/`. All settings except the model are those of `ham10000.yaml`; further options
are passed to `mmfusion train` (`--train.epochs 3`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

CONFIG = Path(__file__).with_suffix(".yaml")
MODELS = {"image": "image_lite0", "text": "text_bert_tiny", "both": "mibf_lite0"}
FIGURES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="folder of the data set")
    parser.add_argument("--output", default="runs/ham10000", help="folder of the three runs")
    options, overrides = parser.parse_known_args()

    rows = {}
    for kind, model in MODELS.items():
        run = Path(options.output, kind)
        command = [
            sys.executable,
            "-m",
            "mmfusion",
            "train",
            "--config",
            CONFIG,
            "--data",
            options.data,
            "--output",
            run,
        ]
        failed = subprocess.run([*command, "--model.name", model, *overrides]).returncode
        if failed:  # the command has printed the reason
            sys.exit(failed)
        rows[kind] = json.loads((run / "metrics.json").read_text())

    print(f"\n{'test':<8}" + "".join(f"{figure:>20}" for figure in FIGURES))
    for kind, metrics in rows.items():
        print(f"{kind:<8}" + "".join(f"{metrics[figure]:>20.3f}" for figure in FIGURES))


if __name__ == "__main__":
    main()
