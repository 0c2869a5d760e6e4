from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from mmfusion.evaluation import Interval, intervals
from mmfusion.evaluation.intervals import (
    bootstrap_counts,
    figure_intervals,
    interval,
    metric_intervals,
    weighted_headline,
)
from mmfusion.evaluation.metrics import HEADLINE, classification_metrics

NAMES = ["a", "b", "c", "d"]


def random_case(n: int = 150, classes: int = 4, seed: int = 0):
    """Labels and informative probabilities with many ties (one decimal)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = (rng.gamma(1.0, size=(n, classes)) + np.eye(classes)[labels]).round(1) + 0.1
    return labels, scores / scores.sum(axis=1, keepdims=True)


def test_weights_of_one_are_the_plain_figures():
    labels, probabilities = random_case()
    plain = classification_metrics(labels, probabilities, NAMES)
    found = weighted_headline(labels, probabilities, np.ones((2, len(labels))))
    assert list(found) == list(HEADLINE)
    for name in HEADLINE:
        assert found[name] == pytest.approx([plain[name]] * 2, abs=1e-12), name


def test_whole_weights_are_repeated_rows():
    labels, probabilities = random_case()
    weights = np.random.default_rng(1).integers(0, 4, (5, len(labels)))
    weights[3, labels == 2] = 0  # a class that a replicate lacks is left out of its means
    weights[4, labels != 1] = 0
    found = weighted_headline(labels, probabilities, weights)
    for r, counts in enumerate(weights):
        rows = np.repeat(np.arange(len(labels)), counts)
        plain = classification_metrics(labels[rows], probabilities[rows], NAMES)
        for name in HEADLINE:
            expected = np.nan if plain[name] is None else plain[name]
            assert found[name][r] == pytest.approx(expected, abs=1e-12, nan_ok=True), (name, r)
    assert np.isnan(found["macro_auroc"][4]) and not np.isnan(found["macro_auroc"][3])


def test_fractional_weights_are_scikit_learns_sample_weight():
    labels, probabilities = random_case()
    weight = np.random.default_rng(2).random(len(labels))
    found = {name: float(value[0]) for name, value in weighted_headline(labels, probabilities, weight[None]).items()}
    probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)  # ties differ in the last bit
    predicted = probabilities.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted, sample_weight=weight))
    balanced = sk.balanced_accuracy_score(labels, predicted, sample_weight=weight)
    assert found["balanced_accuracy"] == pytest.approx(balanced)
    f1 = sk.f1_score(labels, predicted, average="macro", sample_weight=weight)
    assert found["macro_f1"] == pytest.approx(f1)
    areas = [sk.roc_auc_score(labels == c, probabilities[:, c], sample_weight=weight) for c in range(4)]
    assert found["macro_auroc"] == pytest.approx(np.mean(areas))
    assert found["nll"] == pytest.approx(sk.log_loss(labels, probabilities, sample_weight=weight))


def test_no_weight_is_undefined_and_a_probability_of_zero_is_finite():
    found = weighted_headline([0, 1], [[0.0, 1.0], [0.2, 0.8]], [[0, 0], [1, 1]])
    assert all(np.isnan(values[0]) for values in found.values())
    assert found["nll"][1] == pytest.approx(sk.log_loss([0, 1], [[0.0, 1.0], [0.2, 0.8]]))


def test_chunks_change_nothing(monkeypatch):
    labels, probabilities = random_case(40)
    counts = bootstrap_counts(labels, 30)
    whole = weighted_headline(labels, probabilities, counts)
    monkeypatch.setattr(intervals, "CHUNK", 7 * 40)
    assert np.array_equal(bootstrap_counts(labels, 30), counts)
    for name, values in weighted_headline(labels, probabilities, counts).items():
        assert values == pytest.approx(whole[name], abs=1e-14)


def test_whole_groups_are_drawn():
    groups = np.array(["p1", "p2", "p1", "p3", "p3", "p3"])
    counts = bootstrap_counts(groups, 4000, seed=1)
    assert counts.shape == (4000, 6)
    assert np.array_equal(counts[:, 0], counts[:, 2]) and np.array_equal(counts[:, 3], counts[:, 5])
    assert (counts[:, [0, 1, 3]].sum(axis=1) == 3).all()  # three groups, drawn three times
    # each group's count is binomial(3, 1/3): mean 1, variance 2/3
    assert counts[:, [0, 1, 3]].mean(axis=0) == pytest.approx([1, 1, 1], abs=0.05)
    assert counts[:, 1].var() == pytest.approx(2 / 3, abs=0.05)
    assert np.array_equal(counts, bootstrap_counts(groups, 4000, seed=1))
    assert not np.array_equal(counts, bootstrap_counts(groups, 4000, seed=2))


def test_equals_a_bootstrap_by_hand():
    labels, probabilities = random_case(60)
    groups = np.arange(60) // 3
    counts = bootstrap_counts(groups, 50, seed=3)
    expected = []
    for row in counts.astype(int):
        rows = [i for i, count in enumerate(row) for _ in range(count)]
        expected.append(classification_metrics(labels[rows], probabilities[rows], NAMES)["macro_auroc"])
    found = metric_intervals(labels, probabilities, groups, replicates=50, seed=3)["macro_auroc"]
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))
    assert found.value == pytest.approx(classification_metrics(labels, probabilities, NAMES)["macro_auroc"])


def test_ungrouped_agrees_with_scipy():
    labels, probabilities = random_case(400)
    right = (probabilities.argmax(axis=1) == labels).astype(float)
    surprise = -np.log(probabilities[np.arange(400), labels])
    found = metric_intervals(labels, probabilities, replicates=4000)
    for name, sample in (("accuracy", right), ("nll", surprise)):
        reference = stats.bootstrap((sample,), np.mean, n_resamples=4000, method="percentile", random_state=0)
        low, high = reference.confidence_interval
        # two bootstraps of the same sample differ only by their draws
        assert found[name].low == pytest.approx(low, abs=0.15 * (high - low) / 2)
        assert found[name].high == pytest.approx(high, abs=0.15 * (high - low) / 2)


def test_groups_widen_the_interval():
    """Copies of a row in one group do not change the interval."""
    labels, probabilities = random_case(80)
    many = np.repeat(np.arange(80), 4)
    single = metric_intervals(labels, probabilities)["accuracy"]
    grouped = metric_intervals(labels[many], probabilities[many], many)["accuracy"]
    naive = metric_intervals(labels[many], probabilities[many])["accuracy"]
    assert vars(grouped) == pytest.approx(vars(single), abs=1e-12)
    assert naive.high - naive.low < 0.6 * (single.high - single.low)


def test_figures_of_each_class():
    labels, probabilities = random_case(100)
    labels[labels == 3] = 0
    found = metric_intervals(labels, probabilities, class_names=NAMES, replicates=200).per_class
    plain = classification_metrics(labels, probabilities, NAMES)["per_class"]
    for name in NAMES[:3]:
        for figure in ("recall", "auroc"):
            assert found[name][figure].value == pytest.approx(plain[name][figure])
            assert found[name][figure].low <= plain[name][figure] <= found[name][figure].high
    assert found["d"]["auroc"] == Interval(None, None, None)


def test_interval_leaves_out_what_is_undefined():
    values = np.append(np.arange(101.0), [np.nan] * 50)
    assert interval(values) == pytest.approx((2.5, 97.5))
    assert interval(values, level=0.5) == pytest.approx((25, 75))
    assert np.isnan(interval([np.nan])).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval([1.0], level=95), "between 0 and 1"),
        (lambda: weighted_headline([0, 1], [[0.5, 0.5]] * 2, [[1, -1]]), "at least 0"),
        (lambda: weighted_headline([0, 1], [[0.5, 0.5]] * 2, [[1, 1, 1]]), r"\(R, 2\)"),
        (lambda: bootstrap_counts([]), "needs rows"),
        (lambda: bootstrap_counts([1], replicates=0), "at least one replicate"),
    ],
)
def test_errors(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_intervals_of_arbitrary_statistics_are_scipys_bca():
    values = np.random.default_rng(3).exponential(size=40)  # each value is a part of the jackknife
    rows = np.arange(40)
    drawn = SimpleNamespace(bootstrap_distribution=bootstrap_counts(rows, 1000, 0) @ values / 40)
    wanted = stats.bootstrap((values,), np.mean, n_resamples=0, bootstrap_result=drawn, method="BCa")
    found, constant = figure_intervals(lambda w: np.stack([w @ values, w.sum(1)], 1) / w.sum(1, keepdims=True), rows)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(wanted.confidence_interval), abs=1e-12)
    assert (constant.value, constant.low, constant.high) == (1, 1, 1)
    percentile = interval(drawn.bootstrap_distribution)
    assert found.low > percentile[0] and found.high > percentile[1]  # skewed to the right


def test_one_group_has_an_interval_of_no_width():
    (found,) = figure_intervals(lambda w: (w @ np.array([1.0, 3.0]) / np.maximum(w.sum(1), 1))[:, None], [0, 0])
    assert (found.value, found.low, found.high) == (2, 2, 2)


def test_a_strong_acceleration_keeps_the_order_of_the_ends():
    """A single outlier, and a value above all replicates: beyond the pole of the formula."""
    found = intervals._accelerated(2.0, np.linspace(0, 1, 100), np.append(np.zeros(49), -1.0), 0.95)
    assert (found.low, found.high) == (1, 1)
    with pytest.raises(ValueError, match="level of an interval must be between 0 and 1"):
        figure_intervals(lambda w: w[:, :1], [0, 1], level=95)


def test_weights_of_arbitrary_statistics_stay_small(monkeypatch):
    values, sizes = np.random.default_rng(0).normal(size=60), []

    def figures(w):
        sizes.append(w.size)
        return (w @ values / w.sum(1))[:, None]

    whole = figure_intervals(figures, np.arange(60), replicates=100)
    monkeypatch.setattr(intervals, "CHUNK", 600)
    sizes.clear()
    assert vars(figure_intervals(figures, np.arange(60), replicates=100)[0]) == pytest.approx(vars(whole[0]))
    assert max(sizes) == 600
