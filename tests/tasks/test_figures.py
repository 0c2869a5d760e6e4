"""Metrics, calibration and conformal sets of each task, compared with scikit-learn and equations."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    average_precision_score,
    cohen_kappa_score,
    f1_score,
    mean_absolute_error,
    r2_score,
    roc_auc_score,
    root_mean_squared_error,
)

from mmfusion.evaluation import intervals
from mmfusion.evaluation.intervals import weighted_headline
from mmfusion.results import Evaluation
from mmfusion.task import task_named
from mmfusion.tasks.ordinal import adjacent_scores, adjacent_sets, median_grades

N = 200


def labels_with_unknown(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    y = (rng.random((N, 3)) < [0.5, 0.2, 0.7]).astype(float)
    p = np.round((0.4 * y + 0.6 * rng.random((N, 3))), 2)  # rounded: ties
    y[rng.random((N, 3)) < 0.2] = np.nan
    return y, p


def test_several_labels() -> None:
    y, p = labels_with_unknown(np.random.default_rng(0))
    found = task_named("multilabel", ["a", "b", "c"]).figures(y, p)
    known = [~np.isnan(y[:, c]) for c in range(3)]
    for c, name in enumerate("abc"):
        true, said = y[known[c], c], p[known[c], c]
        own = found["per_class"][name]
        assert own["auroc"] == pytest.approx(roc_auc_score(true, said), abs=1e-9)
        assert own["average_precision"] == pytest.approx(average_precision_score(true, said), abs=1e-9)
        assert own["f1"] == pytest.approx(f1_score(true, said >= 0.5), abs=1e-9)
        assert (own["support"], own["known"]) == (int(true.sum()), int(known[c].sum()))
    brier = [np.mean((y[k, c] - p[k, c]) ** 2) for c, k in enumerate(known)]
    assert found["brier"] == pytest.approx(np.mean(brier), abs=1e-9)
    assert found["macro_auroc"] == pytest.approx(np.mean([own["auroc"] for own in found["per_class"].values()]))


def test_grades() -> None:
    rng = np.random.default_rng(1)
    p, y = rng.dirichlet(np.ones(5), N), rng.integers(0, 5, N)
    said = np.array([next(k for k in range(5) if row[: k + 1].sum() >= 0.5) for row in p])
    assert (median_grades(p) == said).all()
    found = task_named("ordinal", list("12345")).figures(y, p)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(y, said, weights="quadratic"), abs=1e-9)
    assert found["mae_grades"] == pytest.approx(np.abs(y - said).mean(), abs=1e-9)
    assert found["accuracy"] == pytest.approx((y == said).mean())


def test_numbers() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(1e6, 3, (N, 2))
    said = y + rng.normal(0.5, 1, (N, 2))
    y[:30, 1] = np.nan
    task = task_named("regression", ["u", "v"])
    found = task.figures(y, np.hstack([said, said, said]))
    for c, name in enumerate(("u", "v")):
        true, told = (each[~np.isnan(y[:, c]), c] for each in (y, said))
        own = found["per_class"][name]
        assert own["mae"] == pytest.approx(mean_absolute_error(true, told), abs=1e-9)
        assert own["rmse"] == pytest.approx(root_mean_squared_error(true, told), abs=1e-9)
        assert own["r2"] == pytest.approx(r2_score(true, told), abs=1e-8)
        lin = 2 * np.cov(true, told, ddof=0)[0, 1] / (true.var() + told.var() + (true.mean() - told.mean()) ** 2)
        assert own["concordance"] == pytest.approx(lin, abs=1e-8)


@pytest.mark.parametrize("name", ["multilabel", "ordinal", "regression"])
def test_a_weight_of_two_is_a_row_twice(name: str) -> None:
    rng = np.random.default_rng(3)
    cases = {
        "multilabel": labels_with_unknown(rng),
        "ordinal": (rng.integers(0, 4, N), rng.dirichlet(np.ones(4), N)),
        "regression": (rng.normal(size=(N, 1)), rng.normal(size=(N, 3))),
    }
    (y, p), counts = cases[name], rng.integers(0, 3, N)
    task = task_named(name, list("abc") if name == "multilabel" else list("1234") if name == "ordinal" else ["u"])
    weighted = weighted_headline(y, p, counts[None].astype(float), task=task)
    again = task.figures(np.repeat(y, counts, axis=0), np.repeat(p, counts, axis=0))
    assert {k: v[0] for k, v in weighted.items()} == pytest.approx({k: again[k] for k in weighted}, abs=1e-9)


def test_temperatures_of_labels_are_the_best() -> None:
    rng = np.random.default_rng(4)
    logits = rng.normal(size=(4000, 2)).astype(np.float32)
    y = (rng.random((4000, 2)) < 1 / (1 + np.exp(-logits * [0.5, 2.0]))).astype(float)
    y[:100, 0] = np.nan
    task = task_named("multilabel", ["a", "b"])
    fitted = task.calibrated(y, logits)
    assert fitted is not None and fitted["temperature"] == pytest.approx([2.0, 0.5], rel=0.15)
    p = task.answers(torch.from_numpy(logits), fitted).numpy()
    assert p == pytest.approx(1 / (1 + np.exp(-logits / np.array(fitted["temperature"]))), abs=1e-6)


def test_sets_of_neighbors() -> None:
    p = np.array([[0.1, 0.2, 0.4, 0.25, 0.05]])
    assert adjacent_scores(p)[0] == pytest.approx([0.85, 0.65, 0.0, 0.4, 0.95])
    assert adjacent_sets(p, 0.86)[0].tolist() == [True, True, True, True, False]
    drawn = np.random.default_rng(5).dirichlet(np.ones(6) / 2, 500)
    for bound in (0.3, 0.7, 0.9):
        changes = np.abs(np.diff(np.pad(adjacent_sets(drawn, bound), ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1)
        assert (changes == 2).all(), "one interval a row"


@pytest.mark.parametrize("name", ["multilabel", "ordinal", "regression"])
def test_conformal_answers_cover(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean coverage over 60 draws is within a point of the requested coverage."""
    draw = intervals._counts
    monkeypatch.setattr(intervals, "_counts", lambda groups, replicates, seed: draw(groups, 2, seed))
    rng, found = np.random.default_rng(6), []
    labels = {"multilabel": ["a", "b"], "ordinal": list("12345"), "regression": ["u"]}[name]
    task = task_named(name, labels)
    for _ in range(60):
        parts = [_drawn(name, task, rng, rows) for rows in (400, 1000)]
        evaluation = Evaluation(classes=labels)
        task.decide(evaluation, *parts, coverage=0.9, sensitivity=0.9)
        (rule,) = evaluation.conformal.rules.values()
        found.append(rule.coverage.value)
    assert np.mean(found) == pytest.approx(0.9, abs=0.01 if name != "multilabel" else 0.02)


def _drawn(name: str, task: object, rng: np.random.Generator, rows: int) -> SimpleNamespace:
    if name == "regression":
        scales = rng.normal(size=(rows, 1))
        scores = np.hstack([rng.normal(size=(rows, 1)), scales]).astype(np.float32)
        y = scores[:, :1] + np.exp(scales) * rng.normal(size=(rows, 1)) * 2
        p = task.answers(torch.from_numpy(scores)).numpy()
    elif name == "ordinal":
        p = rng.dirichlet(np.ones(5), rows)
        y = np.array([rng.choice(5, p=row) for row in p])
        scores = np.log(p).astype(np.float32)
    else:
        scores = rng.normal(size=(rows, 2)).astype(np.float32)
        p = 1 / (1 + np.exp(-scores))
        y = (rng.random((rows, 2)) < p).astype(float)
    return SimpleNamespace(labels=y, probabilities=p, scores=scores, groups=np.arange(rows))


def test_the_saved_rule_of_grades_makes_sets_of_neighbors() -> None:
    task, rng = task_named("ordinal", list("1234")), np.random.default_rng(0)
    p = rng.dirichlet(np.ones(4), 500)
    y = np.array([rng.choice(4, p=row) for row in p])
    rule = task.set_rule(y, p, 0.9)
    inside = task.sets(p, {"conformal": rule})
    assert inside[np.arange(500), y].mean() == pytest.approx(0.9, abs=0.004), "ceil(501 * 0.9) of 500, but for ties"
    assert (np.abs(np.diff(np.pad(inside, ((0, 0), (1, 1))).astype(int), axis=1)).sum(axis=1) == 2).all()
    assert task.sets(p, {"temperature": 1.0}) is None
    with pytest.raises(ValueError, match=r"calibration\.conformal of the model is not a rule for grades"):
        task.sets(p, {"conformal": rule | {"method": "lac"}})
    assert task_named("multilabel", ["a"]).set_rule(y, p, 0.9) is None
