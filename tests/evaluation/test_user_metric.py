"""A custom metric appears wherever built-in metrics do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sklearn import metrics as sk

from mmfusion import registry
from mmfusion.artifacts.card import model_card
from mmfusion.evaluation import METRICS, Metric, Weighted, classification_metrics, headline, metric_intervals
from mmfusion.experiments import ExperimentConfig
from mmfusion.experiments.differences import RunPredictions, compare_rows
from mmfusion.experiments.plan import Row
from mmfusion.experiments.tables import markdown
from mmfusion.figures import Bootstrap
from mmfusion.results import HEADLINE, Evaluation
from mmfusion.training import RunConfig
from mmfusion.training.epochs import best_of

NAMES = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def own_metrics() -> Iterator[None]:
    with registry.temporarily():
        register_metrics()
        yield


def register_metrics() -> None:
    @registry.register("metric", "mcc")
    class MCC(Metric):
        """Matthews correlation coefficient of several classes (Gorodkin 2004)."""

        title, meaning = "MCC", "correlation of predicted and true classes; 1 is best"

        def __call__(self, rows: Weighted) -> np.ndarray:
            n, true, claimed = rows.total, rows.support, rows.claimed
            shared = n * rows.hits.sum(axis=1) - (true * claimed).sum(axis=1)
            spread = (n**2 - (claimed**2).sum(axis=1)) * (n**2 - (true**2).sum(axis=1))
            return np.divide(shared, np.sqrt(spread), out=np.full(len(n), np.nan), where=spread > 0)

    @registry.register("metric", "worst_class")
    class WorstClass(Metric):
        """Share of missed rows of each class; lower is better."""

        title, meaning, higher_is_better, class_name = "missed", "mean share of missed rows", False, "missed"

        def by_class(self, rows: Weighted) -> np.ndarray:
            return 1 - rows.recall


def rows(seed: int = 0, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    scores = rng.gamma(1.0, size=(n, 3)) + np.eye(3)[labels]
    return labels, scores / scores.sum(axis=1, keepdims=True)


def test_it_follows_those_of_mmfusion() -> None:
    assert list(METRICS) == [*HEADLINE, "mcc", "worst_class"] and len(METRICS) == 9
    assert METRICS["mcc"].name == "mcc" and METRICS["mcc"].higher_is_better
    with pytest.raises(KeyError):
        METRICS["mc"]


def test_it_is_in_figures_and_intervals() -> None:
    labels, p = rows()
    found = classification_metrics(labels, p, NAMES)
    expected = sk.matthews_corrcoef(labels, p.argmax(axis=1))
    assert found["mcc"] == pytest.approx(expected) and headline(found)["mcc"] == found["mcc"]
    assert found["per_class"]["b"]["missed"] == pytest.approx(1 - found["per_class"]["b"]["recall"])
    assert found["worst_class"] == pytest.approx(1 - found["balanced_accuracy"])
    ends = metric_intervals(labels, p, class_names=NAMES, replicates=200)
    assert ends["mcc"].value == pytest.approx(expected) and ends["mcc"].low < expected < ends["mcc"].high
    assert set(ends.per_class["a"]) == {"recall", "auroc", "missed"}
    # with one class there is no correlation
    assert classification_metrics(labels * 0, p * 0 + [1, 0, 0], NAMES)["mcc"] is None


def test_the_card_and_a_saved_evaluation_have_it() -> None:
    labels, p = rows()
    plain = classification_metrics(labels, p, NAMES)
    found = Evaluation(
        figures={name: plain.pop(name) for name in METRICS},
        **plain,
        bootstrap=Bootstrap(200, 0.95, 0, 120),
        intervals=metric_intervals(labels, p, class_names=NAMES, replicates=200),
    )
    saved = found.to_dict()
    assert [*saved][: 1 + len(METRICS)] == ["n", *METRICS]
    again = Evaluation.from_dict(saved)
    assert again == found and again.to_dict() == saved
    assert f"  mcc                {found.intervals['mcc']}" in found.summary()
    model = {"image_encoder": "r", "text_encoder": None, "fusion": None, "head": "mlp", "num_classes": 3}
    card = model_card({"model": model | {"image_tower": None}, "card": {"dataset": "Toy"}}, saved)
    assert f"| mcc | {found.figures['mcc']:.4f} [" in card and "type: mcc" in card


def test_it_chooses_the_best_epoch() -> None:
    history = [{"mcc": 0.1, "worst_class": 0.4}, {"mcc": 0.3, "worst_class": 0.2}, {"mcc": 0.2, "worst_class": 0.3}]
    assert best_of(history, "mcc") == best_of(history, "worst_class") == 1


def test_experiments_compare_by_it() -> None:
    run = RunConfig(data="d")
    labels, p = rows()
    ids = [f"r{i}" for i in range(len(labels))]
    wrong = np.roll(p, 1, axis=1)
    given = {
        name: {seed: RunPredictions(ids, labels, probabilities, NAMES) for seed in (0, 1, 2)}
        for name, probabilities in (("good", p), ("bad", wrong))
    }
    plan = [Row("good", "base", run), Row("bad", "variant", run)]
    experiment = ExperimentConfig(run=run, replicates=100, metric="mcc")
    _, bad = results = compare_rows(experiment, plan, given, {})
    assert bad.figures["mcc"].verdict == bad.figures["worst_class"].verdict == "worse"
    text = markdown(experiment, results)
    assert "| row | MCC | accuracy |" in text and "| missed |" in text and "## MCC vs. good" in text
