"""Check the metrics on the cards of installed weights: `python benchmarks/verify_checkpoint.py --data DIR`.

DIR is one or more data sets; a checkpoint is evaluated on the first one that has its rows, or skipped with a message.
If the card's metrics are pooled over folds, those of the checkpoint's own fold are checked. Metrics may differ by
0.005, because weights are rounded to half precision and kernels differ between machines.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Sequence

import mmfusion
from mmfusion.artifacts.shipped import Weights
from mmfusion.data import CaseTable
from mmfusion.evaluation.measure import measure
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.split import read_split

TOLERANCE = 0.005


def rows_of(predictor: Predictor, split: str, count: int, folders: Sequence[str]) -> CaseTable | None:
    """The rows of a split as in training, from the first data set with the right number of rows."""
    read = {"dataset": predictor.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    for folder in folders:
        with contextlib.suppress(ValueError, FileNotFoundError):
            cases = read_split(folder, split, **read)
            if len(cases) == count:
                return cases
    return None


def verified(weights: Weights, folders: Sequence[str]) -> float | None:
    """Largest difference of a metric from the card; None without data."""
    predictor, split = Predictor.from_pretrained(weights), weights.metrics.get("split", "test")
    told = weights.metrics.get("pooled") or weights.metrics
    cases = rows_of(predictor, split, told["n"], folders)
    if cases is None:
        print(f"\n{weights}: none of these data sets has its {told['n']:,} rows of {split} ({weights.dataset})")
        return None
    card = told.get("figures") or told
    print(f"\n{weights}, {len(cases):,} rows of {split}\n{'figure':<20}{'card':>8}{'now':>8}")
    worst = 0.0
    for figure, value in measure(predictor, cases).figures.items():
        if value is not None and figure in card:
            worst = max(worst, abs(value - card[figure]))
            print(f"{figure:<20}{card[figure]:>8.4f}{value:>8.4f}", flush=True)
    return worst


def main() -> None:
    known = mmfusion.list_models(pretrained=True)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, nargs="+", help="data sets that the checkpoints name")
    parser.add_argument("--checkpoint", nargs="*", default=known, choices=known)
    options = parser.parse_args()
    found = [verified(weights, options.data) for weights in known if weights in options.checkpoint]
    differences = [difference for difference in found if difference is not None]
    if not differences:
        raise SystemExit("No checkpoint was verified: none of these data sets has the rows of any.")
    told = f"{len(differences)} of {len(found)} verified; largest difference {max(differences):.4f}"
    print(f"\n{told} (allowed {TOLERANCE})")
    if max(differences) > TOLERANCE:
        raise SystemExit("The metrics on a card differ from those of its checkpoint.")


if __name__ == "__main__":
    main()
