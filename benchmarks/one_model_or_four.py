"""One multilabel model compared with one model per label: metrics with paired intervals over patients and seeds.

Reads finished cross-validations (`mmfusion compare` with `cross_validate`) on the same rows and folds: first that of
the multilabel model, then one for each of its labels. The predictions of the single-label models are combined as if
they were one model. The header of `examples/studies/spine_findings.yaml` has the commands.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from mmfusion.evaluation.metrics import EVERY_METRIC
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.experiments.differences import RunPredictions, compare_rows
from mmfusion.experiments.plan import Row
from mmfusion.experiments.predictions import read_predictions
from mmfusion.training import RunConfig


def seeds_of(study: Path) -> dict[int, tuple[RunPredictions, dict[str, str]]]:
    """Seed -> pooled predictions of all folds, and id -> patient, of the base row of a study."""
    folders = {int(path.name.removeprefix("seed-")): path for path in (study / "runs/base").glob("seed-*")}
    return {seed: read_predictions(sorted(path.glob("fold-*"))) for seed, path in sorted(folders.items())}


def side_by_side(parts: list[RunPredictions], like: RunPredictions) -> RunPredictions:
    """Combine predictions of single labels, in the order of another model's rows and labels."""
    known = {part.class_names[0]: pd.Series(part.probabilities[:, 0], index=part.ids) for part in parts}
    if missing := [name for name in like.class_names if name not in known]:
        raise SystemExit(f"No study predicts {missing[0]} alone.")
    columns = [known[name].reindex(like.ids).to_numpy() for name in like.class_names]
    return RunPredictions(like.ids, like.labels, np.stack(columns, axis=1), like.class_names, like.task)


def seconds(study: Path) -> float:
    """Total training time of a study's base row."""
    runs = pd.read_csv(study / "runs.csv")
    return float(runs[runs["row"] == "base"]["seconds"].sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("together", type=Path, help="study of the multilabel model")
    parser.add_argument("alone", type=Path, nargs="+", help="studies of one label each")
    options = parser.parse_args()
    together = seeds_of(options.together)
    alone = [seeds_of(study) for study in options.alone]
    shared = [seed for seed in together if all(seed in study for study in alone)]
    predictions = {
        "a model for each": {seed: side_by_side([s[seed][0] for s in alone], together[seed][0]) for seed in shared},
        "one model": {seed: together[seed][0] for seed in shared},
    }
    rows = [Row(name, "base", RunConfig(data="")) for name in predictions]
    several, one = compare_rows(ExperimentConfig(), rows, predictions, together[shared[0]][1])
    print(f"{one.cases} rows of {one.groups} patients, seeds {', '.join(map(str, shared))}")
    print(f"{'figure':<24}{'each':>8}{'one':>8}{'difference':>12}  95 % interval")
    for name, own in one.figures.items():
        title = EVERY_METRIC[name].title if name in EVERY_METRIC else name
        apart = f"{own.difference_low:+.3f} to {own.difference_high:+.3f}"
        print(f"{title:<24}{several.figures[name].mean:>8.3f}{own.mean:>8.3f}{own.difference:>+12.3f}  {apart}")
    ratio = seconds(options.together) / sum(map(seconds, options.alone))
    print(f"training time of one model over that of {len(alone)}: {ratio:.2f}")


if __name__ == "__main__":
    main()
