"""Coverage of the 95 % intervals of net benefit and calibration on 1,000 simulated data sets of clustered rows.

Each data set has 120 patients with one to four rows whose risks and outcomes are correlated. The true values are those
of two million patients. Target: a coverage of 0.93 to 0.97 for each metric.
"""

from __future__ import annotations

import argparse

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from mmfusion.evaluation.benefit import calibration_line, net_benefit
from mmfusion.evaluation.intervals import figure_intervals

THRESHOLDS = [0.1, 0.3]
FIGURES = [f"{what} from {t:g}" for what in ("net benefit", "beside acting on all") for t in THRESHOLDS]

Rows = tuple[NDArray[np.bool_], NDArray[np.float64], NDArray[np.int64]]


def draw(rng: np.random.Generator, patients: int) -> Rows:
    """Outcomes, overconfident probabilities and patients of simulated rows."""
    rows = rng.integers(1, 5, patients)
    patient = np.repeat(np.arange(patients), rows)
    shared, unseen = rng.normal(size=patients)[patient], 0.7 * rng.normal(size=patients)[patient]
    risk = -1 + 0.8 * shared + 0.8 * rng.normal(size=len(patient))
    return rng.random(len(patient)) < expit(risk + unseen), expit(1.3 * risk + 0.2), patient


def figures(positive: NDArray[np.bool_], p: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """(R, 6) metrics of rows with weights (R, N)."""
    own = net_benefit(positive, p, THRESHOLDS, weights=weights)
    on_all = net_benefit(positive, np.ones(len(p)), THRESHOLDS, weights=weights)
    return np.concatenate([own, own - on_all, np.stack(calibration_line(positive, logit(p), weights), axis=1)], axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000)
    parser.add_argument("--patients", type=int, default=120)
    parser.add_argument("--seed", type=int, default=0, help="1,000 sets alone are uncertain by 0.007: try several")
    options = parser.parse_args()
    positive, p, _ = draw(np.random.default_rng(options.sets), 2_000_000)
    truth = figures(positive, p, np.ones((1, len(p))))[0]
    held = np.zeros(len(truth))
    for seed in range(options.sets):
        y, q, patients = draw(np.random.default_rng([options.seed, seed]), options.patients)
        found = figure_intervals(lambda w, y=y, q=q: figures(y, q, w), patients, replicates=500, seed=seed)
        held += [each.low <= value <= each.high for each, value in zip(found, truth, strict=True)]
    print(f"{options.sets} data sets of {options.patients} patients\n{'figure':<28}{'truth':>8}{'held':>8}")
    for name, value, count in zip([*FIGURES, "calibration slope", "calibration intercept"], truth, held, strict=True):
        print(f"{name:<28}{value:>8.4f}{count / options.sets:>8.3f}")


if __name__ == "__main__":
    main()
