"""Net benefit and calibration lines, compared with independent computations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, logit

from mmfusion.evaluation.benefit import (
    benefit_difference,
    benefit_figures,
    calibration_line,
    log_odds,
    net_benefit,
)
from mmfusion.evaluation.intervals import bootstrap_counts
from mmfusion.inference.alarms import alarm_score

THRESHOLDS = [0.05, 0.2, 0.5]


def outcomes(n: int = 400, seed: int = 0):
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 1.2, n)
    return rng.random(n) < expit(z), expit(1.4 * z + 0.3), np.arange(n) // 3


@pytest.mark.parametrize("prevalence", [None, 0.02])
def test_net_benefit_by_counting_copies_of_rows(prevalence):
    y, p, groups = outcomes()
    counts = bootstrap_counts(groups, 5)
    found = net_benefit(y, p, THRESHOLDS, weights=counts, prevalence=prevalence)
    for r, count in enumerate(counts.astype(int)):
        copies = np.repeat(np.arange(len(y)), count)
        truth, score = y[copies], p[copies]
        for k, t in enumerate(THRESHOLDS):
            right, wrong = np.mean(score[truth] >= t), np.mean(score[~truth] >= t)
            share = truth.mean() if prevalence is None else prevalence
            assert found[r, k] == pytest.approx(share * right - (1 - share) * wrong * t / (1 - t), abs=1e-12)
    with pytest.raises(ValueError, match="between 0 and 1"):
        net_benefit(y, p, [1.0])


def test_of_all_of_none_and_of_two_models():
    y, p, groups = outcomes()
    first, *_ = benefit_figures(y, p, groups, THRESHOLDS, replicates=50)
    assert first.treat_all.value == pytest.approx(y.mean() - (1 - y.mean()) * 0.05 / 0.95)
    assert first.difference.value == pytest.approx(first.model.value - first.treat_all.value)
    worse = 0.5 * p + 0.5 * y.mean()
    change = benefit_difference(y, (worse, p), groups, THRESHOLDS, replicates=50)
    expected = net_benefit(y, p, THRESHOLDS) - net_benefit(y, worse, THRESHOLDS)
    assert [each.value for each in change] == pytest.approx(expected)
    assert all(each.low <= each.value <= each.high for each in change)
    same = benefit_difference(y, (p, p), groups, THRESHOLDS, replicates=50)
    assert all((each.value, each.low, each.high) == (0, 0, 0) for each in same)


def test_slope_and_intercept_are_those_of_the_likelihood():
    y, p, groups = outcomes()
    x, weights = logit(p), np.vstack([np.ones(len(y)), bootstrap_counts(groups, 3)])
    slopes, intercepts = calibration_line(y, x, weights)

    def fitted(w, free):
        def gradient(v):
            error = w * (expit(v[0] + (v[1] if free else 1) * x) - y)
            return np.array([error.sum(), error @ x] if free else [error.sum()])

        def loss(v):
            z = v[0] + (v[1] if free else 1) * x
            return w @ (np.logaddexp(0, z) - y * z)

        start = [0.0, 1.0] if free else [0.0]
        rough = minimize(loss, start, jac=gradient, method="BFGS", options={"gtol": 1e-10}).x
        for _ in range(3):  # reduces the gradient left by BFGS, with Newton's method and a numeric curvature
            step = 1e-5 * np.eye(len(rough))
            curve = np.stack([(gradient(rough + e) - gradient(rough - e)) / 2e-5 for e in step])
            rough = rough - np.linalg.solve(curve, gradient(rough))
        return rough

    assert slopes == pytest.approx([fitted(w, True)[1] for w in weights], abs=1e-9)
    assert intercepts == pytest.approx([fitted(w, False)[0] for w in weights], abs=1e-9)
    assert 0.5 < slopes[0] < 1


def test_no_slope_where_there_is_none():
    x = np.linspace(-2, 2, 20)
    assert np.isnan(calibration_line(np.ones(20), x)).all()
    slope, intercept = calibration_line(x > 0, x)  # separable without an error
    assert np.isnan(slope).all() and np.isfinite(intercept).all()


def test_no_slope_of_separated_rows_however_steep_they_are():
    x = 30 * np.linspace(-2, 2, 20)  # so steep that the likelihood is 1 at a slope of 11.8
    weights = np.ones((2, 20))
    weights[1, 9:11] = 0
    assert np.isnan(calibration_line(x > 0, x, weights)[0]).all()
    assert np.isnan(calibration_line(x < 0, x, weights)[0]).all()
    mixed = (x > 0) ^ (np.arange(20) == 6)  # one of the negative rows is positive
    assert np.isfinite(calibration_line(mixed, x, weights)[0]).all()


def test_a_curvature_of_zero_is_no_warning():
    x = np.array([-60, -36, -12, 12, 36, 60])  # Newton's first steps end where every probability is 0 or 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        slope, intercept = calibration_line(x > 20, x)
    assert np.isnan(slope).all() and intercept == pytest.approx(-24)  # the middle of 12 and 36


def test_joined_classes():
    p = np.array([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    assert alarm_score(p, ["c", "a"], ["a", "b", "c"]) == pytest.approx([0.7, 1.0])
    odds = log_odds(p, [0, 2])
    assert odds[0] == pytest.approx(logit(0.7)) and np.isfinite(odds).all()
