"""Updates of `mmfusion validate` from 100 local cases: 200 draws in each of four shifted parts of HAM10000.

The parts differ in body site or in how the diagnosis was made. An update is chosen on about 100 cases (whole lesions)
and evaluated on the others of the part. The output for each part: how often each update is chosen, the share of draws
in which it has a significantly worse NLL than no update (target: at most 0.05), the mean gain, and the expected
calibration error before and after. `floor` is the error of perfectly calibrated probabilities on as many rows, the
smallest measurable value. DATA contains `metadata.csv` and `images/`.
"""

from __future__ import annotations

import argparse
from collections import Counter

import numpy as np
from numpy.typing import NDArray

import mmfusion
from mmfusion.evaluation.metrics import metric_value
from mmfusion.evaluation.temperature import row_losses
from mmfusion.inference.split import read_split
from mmfusion.sites.updates import choose_update

PARTS = {
    "diagnosed by histology": ("dx_type", ["histo"]),
    "head and neck": ("localization", ["face", "scalp", "neck", "ear"]),
    "lower extremity": ("localization", ["lower extremity"]),
    "diagnosed without histology": ("dx_type", ["follow_up", "consensus", "confocal"]),
}
LINE = "{:<28}{:>6}{:>8}{:>9}{:>8}{:>8}{:>8}  {}"


def expected_error(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    return metric_value("ece", labels, probabilities) or 0.0


def judge(
    y: NDArray[np.int64], p: NDArray[np.float64], groups: NDArray[np.str_], old: NDArray[np.float64], **options: int
) -> tuple[str, ...]:
    """Results over all draws of a part: labels (N,), probabilities (N, C), lesions (N,), original class shares."""
    lesions, codes = np.unique(groups, return_inverse=True)
    kinds: Counter[str] = Counter()
    figures = []
    for seed in range(options["draws"]):
        rng = np.random.default_rng(seed)
        order = rng.permutation(len(lesions))
        local = order[: np.searchsorted(np.bincount(codes)[order].cumsum(), options["cases"]) + 1]
        fit = np.isin(codes, local)
        update = choose_update(y[fit], p[fit], groups[fit], old, seed)
        kinds[update.kind] += 1
        before, after = p[~fit], update.apply(p[~fit])
        loss = row_losses(y[~fit], after) - row_losses(y[~fit], before)
        each = np.bincount(codes[~fit], loss)[np.unique(codes[~fit])]
        error = np.sqrt(len(each)) * each.std() / len(loss)
        perfect = (after.cumsum(axis=1) > rng.random((len(after), 1))).argmax(axis=1)
        errors = [expected_error(y[~fit], before), expected_error(y[~fit], after), expected_error(perfect, after)]
        figures.append([loss.mean() > 1.96 * error, -loss.mean(), *errors])
    worse, gain, *errors = np.mean(figures, axis=0)
    shown = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    return f"{worse:.3f}", f"{gain:+.4f}", *(f"{each:.3f}" for each in errors), shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="mibf_v2_lite0.ham10000")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--cases", type=int, default=100)
    options = parser.parse_args()
    predictor = mmfusion.Predictor.from_pretrained(options.model)
    read = {"dataset": predictor.dataset, "labels": predictor.labels, "provenance": predictor.provenance}
    found = predictor.predict_cases(read_split(options.data, "test", **read))
    home = predictor.provenance["site"]["labels"]
    old = np.array([home[label] for label in predictor.labels], dtype=np.float64)
    print(LINE.format("part of the test rows", "rows", "worse", "gain", "ECE", "after", "floor", "chosen"))
    for name, (column, values) in PARTS.items():
        rows = found.frame[column].isin(values).to_numpy()
        part = found.labels[rows], found.probabilities[rows].astype(np.float64), found.groups[rows]
        told = judge(*part, old / old.sum(), draws=options.draws, cases=options.cases)
        print(LINE.format(name, int(rows.sum()), *told), flush=True)


if __name__ == "__main__":
    main()
