from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_curve

from mmfusion.evaluation.thresholds import sensitivity_threshold, threshold_figures
from mmfusion.results import Threshold


def scored(n: int, seed: int):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, n)
    score = np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0.01, 0.99).round(2)
    return labels, np.column_stack([1 - score, score])


@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.9, 0.95, 1.0])
def test_threshold_is_the_first_of_the_roc_curve_that_finds_enough(wanted):
    labels, p = scored(301, 0)
    _, found, thresholds = roc_curve(labels, p[:, 1], drop_intermediate=False)
    expected = thresholds[np.argmax(found >= wanted - 1e-12)]
    assert sensitivity_threshold(labels == 1, p[:, 1], wanted) == pytest.approx(expected)


def test_by_hand_and_without_positives():
    assert sensitivity_threshold([1, 1, 1, 1, 0], [0.9, 0.7, 0.5, 0.1, 0.8], 0.75) == 0.5
    assert sensitivity_threshold([0, 0], [0.1, 0.2], 0.9) is None
    with pytest.raises(ValueError, match="above 0"):
        sensitivity_threshold([1], [0.5], 90)


def test_figures_are_those_of_the_measured_rows():
    validation, measured = scored(200, 1), scored(300, 2)
    result = threshold_figures(validation, measured, np.arange(300) // 2, ["no", "yes", "never"][:2], 0.9)
    found = result["yes"]
    labels, score = measured[0], measured[1][:, 1]
    alarm = score >= found.threshold
    assert found.sensitivity.value == pytest.approx(alarm[labels == 1].mean())
    assert found.specificity.value == pytest.approx((~alarm)[labels == 0].mean())
    assert found.sensitivity.low < found.sensitivity.value < found.sensitivity.high
    assert found.validation_positives == validation[0].sum()
    none = threshold_figures((np.zeros(3, int), validation[1][:3]), measured, np.arange(300), ["no", "yes"])
    assert none["yes"] == Threshold(None, 0)
