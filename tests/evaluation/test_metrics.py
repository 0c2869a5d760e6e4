from __future__ import annotations

import json
import math

import numpy as np
import pytest
from sklearn import metrics as sk

from mmfusion.evaluation.metrics import HEADLINE, classification_metrics, expected_calibration_error, headline

NAMES = ["a", "b", "c", "d"]


def random_case(n: int = 200, classes: int = 4, seed: int = 0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, classes, n), rng.dirichlet(np.ones(classes), n)


def test_small_case_by_hand():
    labels = [0, 0, 1, 1]
    probabilities = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]
    result = classification_metrics(labels, probabilities, ["no", "yes"])
    assert result["n"] == 4
    assert result["accuracy"] == 0.75
    assert result["balanced_accuracy"] == 0.75
    assert result["confusion_matrix"] == [[1, 1], [0, 2]]
    assert result["per_class"]["no"] == pytest.approx(
        {"precision": 1.0, "recall": 0.5, "f1": 2 / 3, "auroc": 1.0, "support": 2}
    )
    assert result["per_class"]["yes"]["precision"] == pytest.approx(2 / 3)
    assert result["macro_f1"] == pytest.approx((2 / 3 + 0.8) / 2)
    assert result["nll"] == pytest.approx(-np.mean(np.log([0.9, 0.4, 0.8, 0.7])))
    assert result["brier"] == pytest.approx(np.mean([0.02, 0.72, 0.08, 0.18]))
    # four bins with one row each: |1 - .9|, |0 - .6|, |1 - .8|, |1 - .7|
    assert result["ece"] == pytest.approx((0.1 + 0.6 + 0.2 + 0.3) / 4)


def test_equals_scikit_learn():
    labels, probabilities = random_case()
    predicted = probabilities.argmax(1)
    result = classification_metrics(labels, probabilities, NAMES)
    assert result["accuracy"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert result["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(labels, predicted))
    assert result["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro"))
    assert result["macro_auroc"] == pytest.approx(sk.roc_auc_score(labels, probabilities, multi_class="ovr"))
    assert result["nll"] == pytest.approx(sk.log_loss(labels, probabilities))
    assert result["confusion_matrix"] == sk.confusion_matrix(labels, predicted).tolist()
    assert json.loads(json.dumps(result)) == result


def test_absent_classes_are_listed_and_leave_figures_finite():
    labels, probabilities = random_case(seed=1)
    keep = labels < 2
    labels, probabilities = labels[keep], probabilities[keep]
    result = classification_metrics(labels, probabilities, NAMES)
    predicted = probabilities.argmax(1)
    assert result["absent_classes"] == ["c", "d"]
    assert result["per_class"]["d"]["auroc"] is None and result["per_class"]["d"]["support"] == 0
    areas = [sk.roc_auc_score(labels == c, probabilities[:, c]) for c in (0, 1)]
    assert result["macro_auroc"] == pytest.approx(np.mean(areas))
    recalls = [np.mean(predicted[labels == c] == c) for c in (0, 1)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert result["macro_f1"] == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=0))
    assert all(math.isfinite(v) for v in headline(result).values())


def test_one_class_only():
    result = classification_metrics([1, 1], [[0.2, 0.8], [0.6, 0.4]], ["x", "y"])
    assert result["macro_auroc"] is None and "macro_auroc" not in headline(result)
    assert result["balanced_accuracy"] == 0.5
    assert set(headline(result)) == set(HEADLINE) - {"macro_auroc"}


def test_calibration_error_against_a_loop():
    labels, probabilities = random_case(500, 3, seed=2)
    confidence, correct = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for b in range(15):
        inside = (confidence > b / 15) & (confidence <= (b + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(correct[inside].mean() - confidence[inside].mean())
    assert expected_calibration_error(labels, probabilities) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("labels", "probabilities", "message"),
    [
        ([], np.empty((0, 2)), "no labeled rows"),
        ([0, 1], [[0.5, 0.5], [math.nan, 0.5]], "1 of 2 rows are not finite, first in row 1"),
        ([0, 2], [[0.5, 0.5], [0.5, 0.5]], "from 0 to 1"),
        ([0, -1], [[0.5, 0.5], [0.5, 0.5]], "from 0 to 1"),
        ([0], [[2.0, 3.0]], "sum to 1"),
        ([0, 1], [[0.5, 0.5]], "got labels"),
        ([0], [[0.2, 0.3, 0.5]], "2 class names"),
    ],
)
def test_bad_input_is_named(labels, probabilities, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(np.asarray(labels, dtype=int), probabilities, ["x", "y"])
