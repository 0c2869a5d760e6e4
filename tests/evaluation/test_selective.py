from __future__ import annotations

import numpy as np
import pytest

from mmfusion.evaluation.selective import risk_coverage, selective_figures


def direct(wrong, confidence):
    """Risk of the k most confident rows, with ties averaged, in O(n^2)."""
    n, risk = len(wrong), []
    for k in range(1, n + 1):
        expected = 0.0
        for i in range(n):
            above = sum(confidence[j] > confidence[i] for j in range(n))
            tied = sum(confidence[j] == confidence[i] for j in range(n))
            expected += wrong[i] * min(max((k - above) / tied, 0), 1)
        risk.append(expected / k)
    return risk


@pytest.mark.parametrize("levels", [5, 10**9])
def test_equals_the_direct_computation(levels):
    rng = np.random.default_rng(0)
    confidence = rng.integers(0, levels, 40) / levels
    wrong = rng.random(40) < 0.3
    coverage, risk = risk_coverage(wrong, confidence)
    assert coverage == pytest.approx(np.arange(1, 41) / 40)
    assert risk == pytest.approx(direct(wrong, confidence))


def test_figures_by_hand():
    # most confident first: right, wrong, right, right
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]])
    found = selective_figures([0, 0, 0, 0], p)
    assert found.aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert found.excess_aurc == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 4) / 4 - (1 / 4) / 4)
    half, whole = found.at_coverage[0], found.at_coverage[-1]
    assert vars(half) == pytest.approx({"coverage": 0.5, "confidence": 0.8, "accuracy": 0.5})
    assert vars(whole) == pytest.approx({"coverage": 1.0, "confidence": 0.6, "accuracy": 0.75})


def test_errors_last_leave_no_excess():
    assert selective_figures([0, 0, 1], [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]]).excess_aurc == pytest.approx(0)


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"\(N,\)"):
        risk_coverage([1, 0], [0.5])
