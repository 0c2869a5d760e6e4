"""What the difference between two rows of a study is worth: a bootstrap over whole groups and over seeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mmfusion.evaluation.intervals import bootstrap_counts, interval, weighted_headline
from mmfusion.evaluation.metrics import HEADLINE
from mmfusion.studies.config import StudyConfig
from mmfusion.studies.plan import Row
from mmfusion.training.epochs import LOWER_IS_BETTER

Verdict = Literal["better", "worse", "no detectable difference"]


@dataclass(frozen=True)
class Predictions:
    """Test predictions of one run (or of all its folds).

    Attributes:
        ids: n row ids.
        labels: (n,) int, the true class of each.
        probabilities: (n, C).
        class_names: the C names.
    """

    ids: list[str]
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float64]
    class_names: list[str]


@dataclass(frozen=True)
class Figure:
    """One figure of one row.

    Attributes:
        mean: over the seeds.
        spread: standard deviation over the seeds (n - 1); None with one seed.
        low: lower end of the interval of the mean, over cases and seeds.
        high: upper end.
        difference: of the means, this row minus the base; None for the base itself.
        difference_low: lower end of its paired interval.
        difference_high: upper end.
        verdict: in words; None for the base.
    """

    mean: float
    spread: float | None
    low: float
    high: float
    difference: float | None = None
    difference_low: float | None = None
    difference_high: float | None = None
    verdict: Verdict | None = None


@dataclass
class RowResult:
    """What came out of a row.

    Attributes:
        row: the row.
        figures: headline name -> figure; empty where every run failed.
        seeds: those whose runs were finished.
        cases: test rows.
        groups: patients or lesions among them.
        runs: (seed, fold) -> what the run left.
    """

    row: Row
    figures: dict[str, Figure]
    seeds: list[int]
    cases: int
    groups: int
    runs: dict[Any, dict[str, Any]] = field(default_factory=dict)


def compare_rows(
    study: StudyConfig,
    rows: list[Row],
    predictions: Mapping[str, Mapping[int, Predictions]],
    groups: Mapping[str, Any],
) -> list[RowResult]:
    """Figures of every row, and their differences to the first.

    Each replicate draws whole groups (patients, lesions) with replacement, the same for all rows, and seeds with
    replacement, the same for a row and the base: what is left is how much the difference depends on which cases and
    which seeds the study happened to have.

    Args:
        study: replicates and level.
        rows: the base first.
        predictions: row name -> seed -> predictions.
        groups: row id -> its group, None where it has none.

    Raises:
        ValueError: two rows were tested on different cases, or no run of the base was finished.
    """
    base = predictions[rows[0].name]
    if not base:
        raise ValueError(f"No run of the base row {rows[0].name!r} was finished; see train.log in its folders.")
    reference = next(iter(base.values()))
    order = {id_: i for i, id_ in enumerate(reference.ids)}
    keys = [groups.get(id_) if groups.get(id_) is not None else (id_,) for id_ in reference.ids]
    codes = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    counts = bootstrap_counts(np.array([codes[key] for key in keys]), study.replicates, seed=0)
    results: list[RowResult] = []
    of_base: dict[int, dict[str, NDArray[np.float64]]] = {}
    for row in rows:
        samples = {
            seed: _sampled(_aligned(row.name, p, reference, order), counts) for seed, p in predictions[row.name].items()
        }
        of_base = of_base or samples
        figures: dict[str, Figure] = {}
        if samples:
            figures = {name: _figure(name, samples, of_base, study, row is rows[0]) for name in HEADLINE}
        results.append(RowResult(row, figures, sorted(samples), len(reference.ids), len(codes)))
    return results


def _aligned(name: str, predictions: Predictions, reference: Predictions, order: Mapping[str, int]) -> Predictions:
    """The same rows in the order of the reference."""
    if set(predictions.ids) != set(order) or predictions.class_names != reference.class_names:
        raise ValueError(f"The row {name!r} was tested on other cases or classes than the base; run it anew.")
    place = np.argsort([order[id_] for id_ in predictions.ids])
    labels, probabilities = predictions.labels[place], predictions.probabilities[place]
    return Predictions(reference.ids, labels, probabilities, predictions.class_names)


def _sampled(predictions: Predictions, counts: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Name -> (1 + R,): the figure itself, then its replicates."""
    once = np.ones((1, counts.shape[1]))
    plain = weighted_headline(predictions.labels, predictions.probabilities, once)
    drawn = weighted_headline(predictions.labels, predictions.probabilities, counts)
    return {name: np.concatenate([plain[name], drawn[name]]) for name in HEADLINE}


def _figure(
    name: str,
    samples: Mapping[int, dict[str, NDArray[np.float64]]],
    base: Mapping[int, dict[str, NDArray[np.float64]]],
    study: StudyConfig,
    is_base: bool,
) -> Figure:
    own = np.stack([sample[name] for sample in samples.values()])
    low, high = interval(_over_seeds(own), study.level)
    figure = Figure(
        mean=float(own[:, 0].mean()),
        spread=float(own[:, 0].std(ddof=1)) if len(own) > 1 else None,
        low=low,
        high=high,
    )
    shared = [seed for seed in samples if seed in base]
    if is_base or not shared:
        return figure
    paired = np.stack([samples[seed][name] - base[seed][name] for seed in shared])
    low, high = interval(_over_seeds(paired), study.level)
    return Figure(
        figure.mean,
        figure.spread,
        figure.low,
        figure.high,
        difference=float(paired[:, 0].mean()),
        difference_low=low,
        difference_high=high,
        verdict=verdict(name, low, high),
    )


def _over_seeds(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """(seeds, 1 + R) -> (R,) replicates of the mean over seeds drawn with replacement."""
    seeds, replicates = values.shape[0], values.shape[1] - 1
    drawn = np.random.default_rng(1).integers(seeds, size=(seeds, replicates))
    return np.take_along_axis(values[:, 1:], drawn, axis=0).mean(axis=0)


def verdict(metric: str, low: float, high: float) -> Verdict:
    """What the interval of a difference says: ``better`` or ``worse`` only where it does not hold zero."""
    if not (low > 0 or high < 0):
        return "no detectable difference"
    return "better" if (low > 0) != (metric in LOWER_IS_BETTER) else "worse"
