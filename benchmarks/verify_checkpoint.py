"""The figures on a shipped checkpoint's card, measured again: `python benchmarks/verify_checkpoint.py --data DIR`.

The checkpoint says which data set it was trained on; DIR is that data set. The figures may differ by 0.005: they were
taken with the weights in full precision, which are shipped in half.
"""

from __future__ import annotations

import argparse

import mmfusion
from mmfusion.artifacts.folder import read_metrics, resolve_artifact
from mmfusion.evaluation.measure import measure
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.split import read_split

TOLERANCE = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the data set that the checkpoint names")
    parser.add_argument("--checkpoint", nargs="*", default=mmfusion.list_models(pretrained=True))
    options = parser.parse_args()
    if not options.checkpoint:
        raise SystemExit("This version ships no checkpoint.")

    worst = 0.0
    for name in options.checkpoint:
        card, predictor = read_metrics(resolve_artifact(name)), Predictor.from_pretrained(name)
        assert card is not None
        split = card["split"]
        cases = read_split(
            options.data,
            split,
            dataset=predictor.dataset,
            labels=predictor.labels,
            provenance=predictor.provenance,
        )
        measured = measure(predictor, cases).figures
        print(f"\n{name}, {len(cases):,} rows of {split}\n{'figure':<20}{'card':>8}{'now':>8}")
        for figure, value in measured.items():
            if value is None:
                continue
            worst = max(worst, abs(value - card[figure]))
            print(f"{figure:<20}{card[figure]:>8.4f}{value:>8.4f}")
    print(f"\nlargest difference {worst:.4f} (allowed {TOLERANCE})")
    if worst > TOLERANCE:
        raise SystemExit("The card does not say what the checkpoint does.")


if __name__ == "__main__":
    main()
