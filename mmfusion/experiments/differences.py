"""Differences between rows of an experiment, with intervals over groups and seeds."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, t

from mmfusion.evaluation.benefit import net_benefit
from mmfusion.evaluation.intervals import bootstrap_counts, interval, weighted_headline
from mmfusion.evaluation.metrics import EVERY_METRIC
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.experiments.plan import Row
from mmfusion.inference.alarms import alarm_score
from mmfusion.task import DEFAULT, Task, task_named

Verdict = Literal["better", "worse", "no detectable difference", "not judged: fewer than 3 seeds"]

#: Minimum number of seeds for a verdict.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class RunPredictions:
    """Test predictions of a run (or of all its folds): n ids, labels (n,), probabilities (n, C).

    For tasks other than ``multiclass``, labels and answers of the task.
    """

    ids: list[str]
    labels: NDArray[Any]
    probabilities: NDArray[np.float64]
    class_names: list[str]
    task: Task | None = None

    @property
    def asked(self) -> Task:
        """The task with these class names."""
        return task_named(DEFAULT if self.task is None else self.task.name, self.class_names)


@dataclass(frozen=True)
class Estimate:
    """Estimate of one metric for one row.

    Attributes:
        mean: Mean over the seeds; ``low`` and ``high`` are the ends of its interval, over cases and seeds.
        spread: Standard deviation over the seeds (n - 1); None with one seed.
        difference: Difference of means, this row minus the base, with its paired interval; None for the base.
        verdict: Verdict in words; None for the base.
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
    """Result of a row: metric -> estimate over the finished seeds; empty if every run failed.

    ``cases`` and ``groups`` (patients) are the sizes of the test set; ``runs`` maps (seed, fold) to a run's result.
    """

    row: Row
    figures: dict[str, Estimate]
    seeds: list[int]
    cases: int
    groups: int
    runs: dict[Any, dict[str, Any]] = field(default_factory=dict)


def compare_rows(
    experiment: ExperimentConfig,
    rows: list[Row],
    predictions: Mapping[str, Mapping[int, RunPredictions]],
    groups: Mapping[str, Any],
    *,
    fewest_seeds: int = FEWEST_SEEDS,
) -> list[RowResult]:
    """Metrics of every row, and their differences from the first.

    Each replicate draws whole groups (patients, lesions) with replacement, the same for all rows; runs with the same
    seed are paired. The interval (:func:`mean_interval`) reflects the variation over both cases and seeds.


    Args:
        experiment: Number of replicates and confidence level.
        rows: The rows, the base first.
        predictions: Row name -> seed -> predictions.
        groups: Row id -> its group or None.
        fewest_seeds: Minimum number of seeds for a verdict; 1 compares the given models rather than their training.

    Raises:
        ValueError: Two rows were tested on different cases, or no run of the base has finished.
    """
    base = predictions[rows[0].name]
    if not base:
        raise ValueError(f"No run of the base row {rows[0].name!r} has finished; see train.log in its folders.")
    reference = next(iter(base.values()))
    order = {id_: i for i, id_ in enumerate(reference.ids)}
    keys = [groups.get(id_) if groups.get(id_) is not None else (id_,) for id_ in reference.ids]
    codes = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    counts = bootstrap_counts(np.array([codes[key] for key in keys]), experiment.replicates, seed=0)
    results: list[RowResult] = []
    of_base: dict[int, dict[str, NDArray[np.float64]]] = {}
    for row in rows:
        samples = {
            seed: _sampled(_aligned(row.name, p, reference, order), counts, experiment)
            for seed, p in predictions[row.name].items()
        }
        of_base = of_base or samples
        named = [*reference.asked.metrics, *benefit_names(experiment)] if samples else ()
        judge = partial(_figure, experiment=experiment, is_base=row is rows[0], fewest_seeds=fewest_seeds)
        figures = {name: judge(name, samples, of_base) for name in named}
        results.append(RowResult(row, figures, sorted(samples), len(reference.ids), len(codes)))
    return results


def _aligned(
    name: str, predictions: RunPredictions, reference: RunPredictions, order: Mapping[str, int]
) -> RunPredictions:
    """Predictions in the row order of the reference."""
    if set(predictions.ids) != set(order) or predictions.class_names != reference.class_names:
        raise ValueError(f"The row {name!r} was tested on other cases or classes than the base; run it again.")
    place = np.argsort([order[id_] for id_ in predictions.ids])
    labels, probabilities = predictions.labels[place], predictions.probabilities[place]
    return RunPredictions(reference.ids, labels, probabilities, predictions.class_names, predictions.task)


def benefit_names(experiment: ExperimentConfig) -> list[str]:
    """Names of the net benefit at each threshold, if alarm classes are set."""
    return [f"net benefit from {t:g}" for t in experiment.benefit_thresholds] if experiment.alarm else []


def _sampled(
    predictions: RunPredictions, counts: NDArray[np.float64], experiment: ExperimentConfig
) -> dict[str, NDArray[np.float64]]:
    """Name -> (1 + R,): the metric followed by its replicates."""
    once = np.ones((1, counts.shape[1]))
    told = predictions.labels, predictions.probabilities
    plain, drawn = (weighted_headline(*told, w, task=predictions.asked) for w in (once, counts))
    found = {name: np.concatenate([plain[name], drawn[name]]) for name in plain}
    if experiment.alarm:
        names = predictions.class_names
        positive = np.isin(predictions.labels, [names.index(name) for name in experiment.alarm])
        score = alarm_score(predictions.probabilities, experiment.alarm, names)
        weights = np.concatenate([once, counts])
        benefit = net_benefit(positive, score, experiment.benefit_thresholds, weights=weights)
        found |= dict(zip(benefit_names(experiment), benefit.T, strict=True))
    return found


def _figure(
    name: str,
    samples: Mapping[int, dict[str, NDArray[np.float64]]],
    base: Mapping[int, dict[str, NDArray[np.float64]]],
    *,
    experiment: ExperimentConfig,
    is_base: bool,
    fewest_seeds: int,
) -> Estimate:
    own = np.stack([sample[name] for sample in samples.values()])
    spread = float(own[:, 0].std(ddof=1)) if len(own) > 1 else None
    bounds = EVERY_METRIC[name].bounds if name in EVERY_METRIC else (-np.inf, np.inf)
    low, high = np.clip(mean_interval(own, experiment.level), *bounds).tolist()
    figure = Estimate(float(own[:, 0].mean()), spread, low, high)
    shared = [seed for seed in samples if seed in base]
    if is_base or not shared:
        return figure
    paired = np.stack([samples[seed][name] - base[seed][name] for seed in shared])
    low, high = mean_interval(paired, experiment.level)
    change = float(paired[:, 0].mean())
    judged = verdict(name, low, high, enough_seeds=len(shared) >= fewest_seeds)
    return replace(figure, difference=change, difference_low=low, difference_high=high, verdict=judged)


def mean_interval(values: NDArray[np.float64], level: float) -> tuple[float, float]:
    """Confidence interval of a mean over seeds, for new cases and new seeds.

    The bootstrap interval over cases, widened by the standard error over seeds on the same cases, added in quadrature,
    with Student's t at the degrees of freedom of Welch and Satterthwaite. Resampling three seeds with replacement
    instead would declare one in eight null differences real.

    Args:
        values: (seeds, 1 + R), for each seed the metric followed by its replicates over cases.
        level: Confidence level, e.g. 0.95.

    Returns:
        The ends of the interval; with one seed, those of the bootstrap over cases.
    """
    seeds, means = len(values), values.mean(axis=0)
    mean, replicates = float(means[0]), means[1:]
    low, high = interval(replicates, level)
    of_seeds = float(values[:, 0].var(ddof=1)) / seeds if seeds > 1 else 0.0
    if not of_seeds > 0:
        return low, high
    of_both = of_seeds + float(np.nanvar(replicates))
    share = (1 + level) / 2
    z = float(norm.ppf(share))
    wider = float(t.ppf(share, (seeds - 1) * (of_both / of_seeds) ** 2)) / z
    below, above = max(0.0, mean - low), max(0.0, high - mean)
    extra = z * np.sqrt(of_seeds)
    return low + below - wider * float(np.hypot(below, extra)), high - above + wider * float(np.hypot(above, extra))


def verdict(metric: str, low: float, high: float, *, enough_seeds: bool) -> Verdict:
    """Verdict of the interval of a difference: ``better`` or ``worse`` only if it excludes zero."""
    if not enough_seeds:
        return "not judged: fewer than 3 seeds"
    if not (low > 0 or high < 0):
        return "no detectable difference"
    higher_is_better = metric not in EVERY_METRIC or EVERY_METRIC[metric].higher_is_better  # true for net benefit
    return "better" if (low > 0) == higher_is_better else "worse"
