from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats
from scipy.special import softmax

from mmfusion.evaluation.conformal import Conformal, conformal_figures, conformal_quantile, fit_conformal


def exchangeable(n: int, seed: int, factor: float = 1.0):
    """Labels of four classes, the last one rare, and overconfident probabilities (by ``factor``)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4)) + np.array([1, 0.5, 0, -1.5])
    labels = np.array([rng.choice(4, p=row) for row in softmax(z, axis=1)])
    return labels, softmax(factor * z, axis=1)


@pytest.mark.parametrize("n", [9, 10, 19, 20, 99])
def test_quantile_is_the_finite_sample_one(n):
    scores = np.arange(1, n + 1, dtype=float)
    rank = -(-(n + 1) * Fraction(9, 10) // 1)
    assert conformal_quantile(scores[::-1], 0.9) == (rank if rank <= n else np.inf)


def test_too_few_rows_cover_everything():
    assert conformal_quantile(np.arange(8.0), 0.9) == np.inf
    assert conformal_quantile([], 0.9) == np.inf
    with pytest.raises(ValueError, match="between 0 and 1"):
        conformal_quantile([1.0], 90)


def test_coverage_of_a_further_score_is_the_promised_one():
    """The expected coverage over calibration sets is exactly ceil((n + 1) (1 - a)) / (n + 1)."""
    rng, n, draws = np.random.default_rng(0), 25, 4000
    inside = sum(rng.random() <= conformal_quantile(rng.random(n), 0.9) for _ in range(draws))
    expected = np.ceil((n + 1) * 0.9) / (n + 1)
    assert stats.binomtest(inside, draws, expected).pvalue > 0.001


def test_sets_by_hand():
    p = np.array([[0.6, 0.3, 0.1], [0.34, 0.33, 0.33]])
    assert Conformal("lac", np.full(3, 0.7)).sets(p).tolist() == [[True, True, False], [True, True, True]]
    assert Conformal("aps", np.full(3, 0.95)).sets(p).tolist() == [[True, True, False], [True, True, False]]
    # the most probable class is included, however strict the rule
    assert Conformal("aps", np.full(3, 0.1)).sets(p).tolist() == [[True, False, False], [True, False, False]]


@pytest.mark.parametrize("method", ["lac", "aps"])
@pytest.mark.parametrize("factor", [1.0, 3.0])
def test_held_out_rows_are_covered(method, factor):
    rule = fit_conformal(*exchangeable(2000, 1, factor), coverage=0.9, method=method)
    labels, p = exchangeable(4000, 2, factor)
    sets = rule.sets(p)
    covered = sets[np.arange(len(labels)), labels].mean()
    # given the calibration set, coverage has a Beta distribution around 0.9 (plus the most probable class's part)
    assert 0.9 - 4 * np.sqrt(0.09 / 2000 + 0.09 / 4000) < covered < 0.95
    assert sets.any(axis=1).all() and 1 <= sets.sum(axis=1).mean() < 4


@pytest.mark.parametrize("method", ["lac", "aps"])
def test_by_class_the_rare_class_is_covered_too(method):
    fitted, (labels, p) = exchangeable(4000, 3), exchangeable(8000, 4)
    rare = labels == 3
    marginal = fit_conformal(*fitted, method=method).sets(p)[rare, 3].mean()
    by_class = fit_conformal(*fitted, method=method, by_class=True).sets(p)
    assert marginal < 0.75
    for c in range(4):
        n, m = (fitted[0] == c).sum(), (labels == c).sum()
        assert by_class[labels == c, c].mean() > 0.9 - 4 * np.sqrt(0.09 / n + 0.09 / m)


def test_figures():
    labels, p = exchangeable(300, 5)
    rule = fit_conformal(labels[:150], p[:150])
    found = conformal_figures(rule, labels[150:], p[150:], np.arange(150), list("abcd"))
    sets = rule.sets(p[150:])
    covered = sets[np.arange(150), labels[150:]]
    assert found.coverage.value == pytest.approx(covered.mean())
    assert found.coverage.low < covered.mean() < found.coverage.high
    assert found.mean_size.value == pytest.approx(sets.sum(axis=1).mean())
    assert found.single.value == pytest.approx((sets.sum(axis=1) == 1).mean())
    assert sum(found.sizes.values()) == 150
    assert sum(int(k) * count for k, count in found.sizes.items()) == sets.sum()
    here = labels[150:] == 1
    assert found.per_class["b"].coverage.value == pytest.approx(covered[here].mean())
    few = fit_conformal([0, 1, 2], p[:3], by_class=True)
    assert conformal_figures(few, labels, p, labels, list("abcd")).per_class["a"].undecided is True


def test_unknown_method():
    with pytest.raises(ValueError, match="lac, aps"):
        fit_conformal([0, 1], [[0.5, 0.5]] * 2, method="raps")


@pytest.mark.parametrize("classes", [2, 3])
def test_adaptive_sets_cover_a_model_that_is_less_often_right(classes):
    """The threshold is then 1, but float32 rows sum to 1 only up to rounding, which must not decide the last class."""
    rng = np.random.default_rng(0)

    def rows(n):
        logits = rng.normal(size=(n, classes)).astype(np.float32)
        p = softmax(logits, axis=1)
        return np.array([rng.choice(classes, p=row / row.sum()) for row in p.astype(np.float64)]), p

    held = []
    for _ in range(20):
        rule = fit_conformal(*rows(300), coverage=0.95, method="aps")
        labels, p = rows(500)
        held.append(rule.sets(p)[np.arange(500), labels].mean())
    assert np.mean(held) > 0.94
