"""Write a finished run to a folder for distribution, with half-precision weights and new metrics.

    python examples/ship.py --model runs/first --data DIR --output mmfusion/checkpoints/mibf_lite0.ham10000

DIR is the model's data set, read with the options in the run's `config.yaml`. The card and `metrics.json` get the
metrics of the rounded weights with intervals, decision thresholds if the run chose any (`train.sensitivity`), and rows
per second on this machine. For a fold of `mmfusion compare` with `cross_validate` and `keep_models`, `--pool` writes
the pooled metrics of all folds of that seed, with a note that the weights are those of one fold:

    python examples/ship.py --pool --model runs/study/runs/base/seed-0/fold-1 --data DIR --output runs/shipped
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from mmfusion.artifacts.folder import resolve_artifact
from mmfusion.data import CaseTable, DatasetConfig
from mmfusion.evaluation.measure import measure
from mmfusion.experiments.pooling import pooled
from mmfusion.heap import keep_freed_memory
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.split import read_split

#: number of rows for measuring the speed.
TIMED = 512


def speed(predictor: Predictor, cases: CaseTable) -> dict[str, Any]:
    """Rows read and predicted per second of CPU time on one core, or per second on a GPU."""
    on_cpu = next(predictor.network().parameters()).device.type == "cpu"
    clock = time.process_time if on_cpu else time.perf_counter
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    predictor.predict_cases(replace(cases, frame=cases.frame.head(32)), on_bad_row="skip")
    timed = replace(cases, frame=cases.frame.head(TIMED))
    start = clock()
    predictor.predict_cases(timed, on_bad_row="skip")
    seconds = clock() - start
    torch.set_num_threads(threads)
    machine = "one CPU core" if on_cpu else torch.cuda.get_device_name()
    return {"rows_per_second": round(len(timed) / seconds, 1), "machine": f"torch {torch.__version__}, {machine}"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="run folder, e.g. runs/first")
    parser.add_argument("--data", required=True, help="data set of the run")
    parser.add_argument("--output", required=True, type=Path, help="folder for the copy")
    parser.add_argument("--split", default="test", help="split to evaluate it on")
    parser.add_argument(
        "--pool", action="store_true", help="report the pooled metrics of all folds, for a model of one fold"
    )
    options = parser.parse_args()

    keep_freed_memory()  # as the commands do, whose speed is measured
    full = Predictor.from_pretrained(options.model)
    full.save_pretrained(options.output, dtype=torch.float16)
    small = Predictor.from_pretrained(options.output)
    run = yaml.safe_load((resolve_artifact(options.model).parent / "config.yaml").read_text(encoding="utf-8"))
    read: dict[str, Any] = {"dataset": DatasetConfig(**run["dataset"]), "labels": small.labels}
    read["provenance"] = small.provenance
    cases = read_split(options.data, options.split, **read)
    chosen = (full.metrics or {}).get("thresholds")
    asked: dict[str, Any] = {}
    if chosen and options.split == "test":
        asked = {"validation": read_split(options.data, "val", **read), "sensitivity": chosen["wanted"]}
    found = measure(small, cases, **asked)
    if options.pool:
        found = pooled(options.model, found)
    metrics = found.to_dict() | {"split": options.split, "speed": speed(small, cases)}
    small.save_pretrained(options.output, metrics, dtype=torch.float16)
    print(", ".join(f"{name} {value:.4f}" for name, value in found.figures.items() if value is not None))
    size = (options.output / "model.safetensors").stat().st_size
    print(f"{size / 1e6:.1f} MB of weights (12 at most to be shipped) in {options.output}")


if __name__ == "__main__":
    main()
