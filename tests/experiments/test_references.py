"""Baselines: class shares and gradient boosting, compared with scikit-learn and by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import balanced_accuracy_score, log_loss

from mmfusion.data import DatasetConfig
from mmfusion.experiments.references import reference_once
from mmfusion.training import ModelConfig, RunConfig, TrainConfig


@pytest.fixture
def table() -> pd.DataFrame:
    """90 rows of three classes, which a number and a category partly determine."""
    rng = np.random.default_rng(0)
    labels = np.arange(90) % 3
    site = np.where(labels == 2, "back", rng.choice(["back", "face"], 90))
    frame = pd.DataFrame({"age": rng.normal(40 + 6 * labels, 8).round(1), "site": site})
    frame = frame.assign(label=[["x", "y", "z"][label] for label in labels], split=["train"] * 60 + ["test"] * 30)
    frame.loc[::11, "age"] = None
    return frame


@pytest.fixture
def run(table: pd.DataFrame, tmp_path: Path) -> RunConfig:
    model, train = ModelConfig(name="table_mlp"), TrainConfig(batch_size=8)
    return RunConfig(
        table, str(tmp_path / "run"), model=model, train=train, dataset=DatasetConfig(table_columns="auto")
    )


def test_gradient_boosting_is_that_of_scikit_learn(run: RunConfig, table: pd.DataFrame) -> None:
    found = reference_once("gradient_boosting", run, images_checked=True)
    x = np.column_stack([table["age"], table["site"].map({"back": 2, "face": 3})])
    train = (table["split"] == "train").to_numpy()
    model = HistGradientBoostingClassifier(early_stopping=False, categorical_features=[False, True], random_state=0)
    expected = model.fit(x[train], table["label"][train]).predict_proba(x[~train])
    written = pd.read_csv(Path(run.output) / "predictions.csv")
    np.testing.assert_allclose(written[["p_x", "p_y", "p_z"]], expected, atol=1e-5)
    truth = table["label"][~train]
    assert found["figures"]["nll"] == pytest.approx(log_loss(truth, expected), rel=1e-5)
    named = model.classes_[expected.argmax(axis=1)]
    assert found["figures"]["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(truth, named))
    # a finished one is read
    (Path(run.output) / "predictions.csv").unlink()
    assert reference_once("gradient_boosting", run, images_checked=True) == found


def test_the_class_shares(run: RunConfig) -> None:
    found = reference_once("prior", run, images_checked=True)["figures"]
    assert found["nll"] == pytest.approx(np.log(3), rel=1e-6) and found["macro_auroc"] == 0.5
    assert pd.read_csv(Path(run.output) / "predictions.csv")["true_label"].tolist() == ["x", "y", "z"] * 10
