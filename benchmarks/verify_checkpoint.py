"""The figures on the cards of installed weights, measured again: `python benchmarks/verify_checkpoint.py --data DIR`.

DIR is a data set, or several; the rows of a checkpoint are read from the first one that has them, and one line says
where there is none. Where the card's figures are pooled over folds, those of the checkpoint's own fold are measured.
Figures may differ by 0.005: weights are rounded to half precision, and kernels differ between machines.
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
    """The rows of a split as they were in training, from the first data set that has as many."""
    read = {"dataset": predictor.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    for folder in folders:
        with contextlib.suppress(ValueError, FileNotFoundError):
            cases = read_split(folder, split, **read)
            if len(cases) == count:
                return cases
    return None


def verified(weights: Weights, folders: Sequence[str]) -> float | None:
    """Largest difference of a figure from the card; None without data."""
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
        raise SystemExit("No checkpoint was verified: none of these data sets is one that they name.")
    told = f"{len(differences)} of {len(found)} verified; largest difference {max(differences):.4f}"
    print(f"\n{told} (allowed {TOLERANCE})")
    if max(differences) > TOLERANCE:
        raise SystemExit("A card does not say what its checkpoint does.")


if __name__ == "__main__":
    main()
