"""What a difference is worth, beside an explicit bootstrap."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from mmfusion.studies import StudyConfig
from mmfusion.studies.differences import Predictions, compare_rows, verdict
from mmfusion.studies.plan import Row
from mmfusion.training import RunConfig

RUN = RunConfig(data="d")
NAMES = ["a", "b", "c"]


def predictions(rng: np.random.Generator, labels: np.ndarray, skill: float) -> Predictions:
    logits = rng.normal(size=(len(labels), 3)) + skill * np.eye(3)[labels]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Predictions([f"r{i}" for i in range(len(labels))], labels, p, NAMES)


def rows(*names: str) -> list[Row]:
    return [Row(name, "base" if i == 0 else "variant", RUN) for i, name in enumerate(names)]


def test_intervals_are_those_of_an_explicit_bootstrap() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 120)
    groups = {f"r{i}": f"g{i // 3}" for i in range(120)}
    given = {name: {s: predictions(rng, labels, skill) for s in (0, 1, 2)} for name, skill in (("a", 1.0), ("b", 2.0))}
    study = StudyConfig(run=RUN, replicates=4000)
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
        seeds = rng.integers(0, 3, 3)
        differences.append(np.mean([accuracy("b", s, drawn) - accuracy("a", s, drawn) for s in seeds]))
    low, high = np.quantile(differences, [0.025, 0.975])
    assert figure.difference_low == pytest.approx(low, abs=0.012)
    assert figure.difference_high == pytest.approx(high, abs=0.012)
    assert figure.verdict == "better" and other.figures["nll"].verdict == "better"
    assert base.figures["accuracy"].difference is None


def test_a_row_beside_itself_differs_by_nothing_and_order_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 50)
    one = predictions(rng, labels, 1.0)
    turned = Predictions(one.ids[::-1], one.labels[::-1], one.probabilities[::-1], NAMES)
    _, same = compare_rows(StudyConfig(run=RUN, replicates=50), rows("a", "b"), {"a": {0: one}, "b": {0: turned}}, {})
    for figure in same.figures.values():
        assert (figure.difference, figure.difference_low, figure.difference_high) == (0, 0, 0)
        assert figure.verdict == "no detectable difference" and figure.spread is None


def test_failed_seeds_and_rows_are_left_out() -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(0, 3, 50)
    base = {0: predictions(rng, labels, 1.0), 1: predictions(rng, labels, 1.0)}
    given = {"a": base, "b": {1: base[1]}, "c": {}}
    _, partly, failed = compare_rows(StudyConfig(run=RUN, replicates=50), rows("a", "b", "c"), given, {})
    assert partly.seeds == [1] and partly.figures["accuracy"].difference == 0
    assert failed.figures == {} and failed.seeds == []
    with pytest.raises(ValueError, match="No run of the base row 'a' was finished"):
        compare_rows(StudyConfig(run=RUN), rows("a", "b"), {"a": {}, "b": base}, {})


def test_other_test_rows_are_refused() -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 3, 20)
    one, other = predictions(rng, labels, 1.0), predictions(rng, labels, 1.0)
    other.ids[3] = "someone else"
    with pytest.raises(ValueError, match="The row 'b' was tested on other cases"):
        compare_rows(StudyConfig(run=RUN), rows("a", "b"), {"a": {0: one}, "b": {0: other}}, {})


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
    assert verdict(metric, low, high) == expected
