"""Intervals of differences, compared with an explicit bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score

from mmfusion.experiments import ExperimentConfig
from mmfusion.experiments.differences import RunPredictions, compare_rows, mean_interval, verdict
from mmfusion.experiments.plan import Row
from mmfusion.training import RunConfig

RUN = RunConfig(data="d")
NAMES = ["a", "b", "c"]


def predictions(rng: np.random.Generator, labels: np.ndarray, skill: float) -> RunPredictions:
    logits = rng.normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return RunPredictions([f"r{i}" for i in range(len(labels))], labels, p, NAMES)


def rows(*names: str) -> list[Row]:
    return [Row(name, "base" if i == 0 else "variant", RUN) for i, name in enumerate(names)]


def test_intervals_are_those_of_an_explicit_bootstrap() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    groups = {f"r{i}": f"g{i // 3}" for i in range(120)}
    given = {name: {s: predictions(rng, labels, skill) for s in (0, 1, 2)} for name, skill in (("a", 1.0), ("b", 2.0))}
    study = ExperimentConfig(run=RUN, replicates=4000)
    base, other = compare_rows(study, rows("a", "b"), given, groups)
    assert (base.cases, base.groups, base.seeds) == (120, 40, [0, 1, 2])

    def accuracy(name: str, seed: int, drawn: np.ndarray) -> float:
        return accuracy_score(labels[drawn], given[name][seed].probabilities.argmax(1)[drawn])

    all_rows = np.arange(120)
    by_seed = [accuracy("b", seed, all_rows) for seed in range(3)]
    figure = other.figures["accuracy"]
    assert figure.mean == pytest.approx(np.mean(by_seed)) and figure.spread == pytest.approx(np.std(by_seed, ddof=1))
    assert figure.difference == pytest.approx(figure.mean - base.figures["accuracy"].mean)
    differences = []
    for _ in range(1500):
        drawn = np.concatenate([np.arange(3 * g, 3 * g + 3) for g in rng.integers(0, 40, 40)])
        differences.append(np.mean([accuracy("b", s, drawn) - accuracy("a", s, drawn) for s in range(3)]))
    of_seeds = np.var([accuracy("b", s, all_rows) - accuracy("a", s, all_rows) for s in range(3)], ddof=1) / 3
    both = of_seeds + np.var(differences)
    # ends in quadrature, at the degrees of freedom of Welch and Satterthwaite
    wider = stats.t.ppf(0.975, both**2 / (of_seeds**2 / 2)) / stats.norm.ppf(0.975)
    for end, share in ((figure.difference_low, 0.025), (figure.difference_high, 0.975)):
        reach = np.hypot(np.quantile(differences, share) - figure.difference, 1.96 * np.sqrt(of_seeds))
        assert abs(end - figure.difference) == pytest.approx(wider * reach, abs=0.012)
    assert figure.verdict == "better" and other.figures["nll"].verdict == "better"
    assert base.figures["accuracy"].difference is None


def test_intervals_end_at_the_bounds_of_their_metric() -> None:
    rng = np.random.default_rng(1)
    labels = np.arange(24) % 3
    given = {"a": {seed: predictions(rng, labels, 2.0) for seed in (0, 1)}}
    (base,) = compare_rows(ExperimentConfig(run=RUN), rows("a"), given, {f"r{i}": f"g{i}" for i in range(24)})
    accuracy, nll = base.figures["accuracy"], base.figures["nll"]
    assert accuracy.high == 1 and accuracy.low < accuracy.mean < 1  # the seeds alone would put the end above
    assert 0 <= nll.low < nll.mean < nll.high


def test_a_row_beside_itself_differs_by_nothing_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 50)
    one = predictions(rng, labels, 1.0)
    turned = RunPredictions(one.ids[::-1], one.labels[::-1], one.probabilities[::-1], NAMES)
    _, same = compare_rows(
        ExperimentConfig(run=RUN, replicates=50), rows("a", "b"), {"a": {0: one}, "b": {0: turned}}, {}
    )
    for figure in same.figures.values():
        assert (figure.difference, figure.difference_low, figure.difference_high) == (0, 0, 0)
        assert figure.verdict == "not judged: fewer than 3 seeds" and figure.spread is None


def test_failed_seeds_and_rows_are_left_out() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 50)
    base = {0: predictions(rng, labels, 1.0), 1: predictions(rng, labels, 1.0)}
    given = {"a": base, "b": {1: base[1]}, "c": {}}
    _, partly, failed = compare_rows(ExperimentConfig(run=RUN, replicates=50), rows("a", "b", "c"), given, {})
    assert partly.seeds == [1] and partly.figures["accuracy"].difference == 0
    assert failed.figures == {} and failed.seeds == []
    with pytest.raises(ValueError, match="No run of the base row 'a' has finished"):
        compare_rows(ExperimentConfig(run=RUN), rows("a", "b"), {"a": {}, "b": base}, {})


def test_other_test_rows_are_refused() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 20)
    one, other = predictions(rng, labels, 1.0), predictions(rng, labels, 1.0)
    other.ids[3] = "someone else"
    with pytest.raises(ValueError, match="The row 'b' was tested on other cases"):
        compare_rows(ExperimentConfig(run=RUN), rows("a", "b"), {"a": {0: one}, "b": {0: other}}, {})


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("accuracy", 0.01, 0.02, "better"),
        ("accuracy", -0.02, -0.01, "worse"),
        ("nll", 0.01, 0.02, "worse"),
        ("nll", -0.02, -0.01, "better"),
        ("accuracy", -0.01, 0.02, "no detectable difference"),
        ("accuracy", 0.0, 0.0, "no detectable difference"),
        ("macro_auroc", float("nan"), float("nan"), "no detectable difference"),
    ],
)
def test_verdicts(metric: str, low: float, high: float, expected: str) -> None:
    assert verdict(metric, low, high, enough_seeds=True) == expected
    assert verdict(metric, low, high, enough_seeds=False) == "not judged: fewer than 3 seeds"


@pytest.mark.parametrize("spread", [0.0, 0.01, 0.02])
def test_nothing_is_called_something_once_in_twenty_times(spread: float) -> None:
    """Three seeds of two equally good settings, whose accuracy differs by chance from seed to seed and row to row."""
    rng, rows, trials = np.random.default_rng(0), 600, 300
    missed = 0
    for _ in range(trials):
        difference = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.8, 0.1], size=(3, rows))
        shift = rng.normal(0, spread, size=(3, 1))
        counts = rng.multinomial(rows, np.full(rows, 1 / rows), size=200)
        replicates = difference @ counts.T / rows + shift
        low, high = mean_interval(np.concatenate([difference.mean(1, keepdims=True) + shift, replicates], axis=1), 0.95)
        missed += not low <= 0 <= high
    assert missed / trials < 0.075


def test_one_seed_has_the_bootstrap_over_cases() -> None:
    values = np.random.default_rng(0).normal(size=(1, 500))
    assert mean_interval(values, 0.9) == tuple(np.quantile(values[0, 1:], [0.05, 0.95]))
