"""``FusionClassifier`` with scikit-learn: frames, arrays, folds, searches, calibration, pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris
from sklearn.inspection import permutation_importance
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import mmfusion
from mmfusion import FusionClassifier
from mmfusion.data import make_demo

TINY: dict[str, Any] = {"model": "test_mibf", "epochs": 1, "batch_size": 8}
SETTINGS = {"processor.image_size": 32}


@pytest.fixture(autouse=True)
def quiet_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmfusion.training.finish.plot_training_curves", lambda *_: None)


@pytest.fixture
def frame(toy: Path) -> pd.DataFrame:
    frame = pd.read_csv(toy / "cases.csv").drop(columns="split")
    rng = np.random.default_rng(0)
    frame["age"] = rng.integers(20, 90, len(frame)).astype(float)
    return frame.assign(patient=np.arange(len(frame)) // 2)


def test_images_texts_and_columns(
    toy: Path, frame: pd.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = frame[["image", "text", "age"]], frame["label"]
    clf = FusionClassifier(**TINY, settings=SETTINGS, image_root=str(toy)).fit(X, y, groups=frame["patient"])
    assert capsys.readouterr() == ("", "")
    found = clf.predict_proba(X)
    assert found.shape == (37, 3) and np.abs(found.sum(axis=1) - 1).max() < 1e-12
    assert clf.classes_.tolist() == ["a", "b", "c"] and clf.feature_names_in_.tolist() == ["image", "text", "age"]
    assert clf.n_features_in_ == 3 and clf.predictor_.processor.table.names == ["age"]
    assert clf.predict(X).tolist() == clf.classes_[found.argmax(axis=1)].tolist()

    folder = clf.save_pretrained(tmp_path / "model")
    rows = X.assign(image=[str(toy / name) for name in X["image"]])
    assert np.abs(mmfusion.Predictor.from_pretrained(folder).predict_proba(rows) - found).max() < 1e-5
    named = FusionClassifier(**TINY, settings=SETTINGS, image_root=str(toy)).fit(
        frame[["image", "text", "age", "label"]]
    )
    assert named.feature_names_in_.tolist() == ["image", "text", "age"]
    with pytest.raises(ValueError, match=r"Row nowhere\.png cannot be predicted"):
        clf.predict(X[:1].assign(image="nowhere.png"))


@pytest.mark.parametrize(
    ("folds", "demo"), [(2, False), pytest.param(5, True, marks=pytest.mark.slow, id="five folds of the demo data")]
)
def test_the_same_folds_as_a_run(toy: Path, frame: pd.DataFrame, tmp_path: Path, folds: int, demo: bool) -> None:
    root, groups, inputs = toy, frame["patient"], ["image", "text", "age"]
    if demo:
        root = make_demo(tmp_path / "demo", n=60) / "images"
        frame, inputs = pd.read_csv(root.parent / "metadata.csv"), [*inputs, "sex", "localization"]
        groups = frame["patient_id"]
    X, y, cv = frame[inputs], frame["label"], StratifiedGroupKFold(folds)
    clf = FusionClassifier(**TINY, settings=SETTINGS, image_root=str(root))
    scores = cross_val_score(clf, X, y, groups=groups, cv=cv, scoring="neg_log_loss", error_score="raise")
    for number, (_, held_out) in enumerate(cv.split(X, y, groups)):
        split = np.where(np.isin(np.arange(len(frame)), held_out), "test", "train")
        run = mmfusion.train(
            X.assign(label=y, split=split),
            output=tmp_path / str(number),
            model={"name": "test_mibf"},
            dataset={"image_root": str(root), "table_columns": "auto"},
            processor={"image_size": 32},
            train={"epochs": 1, "batch_size": 8, "lr": 1e-3},
        )
        assert run.evaluation is not None and run.predictor.processor.table is not None
        assert abs(run.evaluation.figures["nll"] + scores[number]) < 1e-6


def test_arrays_are_columns() -> None:
    X, y = load_iris(return_X_y=True)
    clf = FusionClassifier(epochs=8, lr=1e-2).fit(X, y)
    assert clf.score(X, y) > 0.9 and clf.classes_.tolist() == [0, 1, 2]
    assert clf.predictor_.processor.table.names == ["x0", "x1", "x2", "x3"]
    again = FusionClassifier(epochs=8, lr=1e-2).fit(X, y)
    assert (again.predict_proba(X) == clf.predict_proba(X)).all()
    other = FusionClassifier(epochs=8, lr=1e-2, seed=1).fit(X, y)
    assert np.abs(other.predict_proba(X) - clf.predict_proba(X)).max() > 1e-3
    missing = np.where(np.arange(4) == 2, np.nan, X)
    assert np.isfinite(clf.predict_proba(missing)).all()
    importance = permutation_importance(clf, X, y, n_repeats=2, random_state=0).importances_mean
    assert importance.argmax() in (2, 3)  # the petals


@pytest.mark.slow
def test_searches_calibration_and_pipelines() -> None:
    X, y = load_iris(return_X_y=True, as_frame=True)
    clf = FusionClassifier(epochs=4, lr=1e-2)
    search = GridSearchCV(clf, {"lr": [1e-6, 1e-2]}, cv=2, error_score="raise").fit(X, y)
    assert search.best_params_ == {"lr": 1e-2}
    assert make_pipeline(StandardScaler(), clf).fit(X, y).score(X, y) > 0.8
    calibrated = CalibratedClassifierCV(clf, cv=2, ensemble=False).fit(X, y)
    assert calibrated.score(X, y) > 0.8


def test_what_is_odd_is_kept_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    rng = np.random.default_rng(0)
    y = np.repeat(["no", "yes"], 20)
    frame = pd.DataFrame({"constant": 1.0, "leak": (y == "yes") * 1.0, "site": rng.choice(["A", "B"], 40)})
    clf = FusionClassifier(epochs=1, verbose=True).fit(frame, y)
    assert clf.predictor_.processor.table.names == ["constant", "leak", "site"]
    told = [record.getMessage() for record in caplog.records if "used despite a problem" in record.getMessage()]
    assert len(told) == 1 and "'constant' has one value" in told[0] and "'leak'" in told[0]


def test_the_columns_of_a_frame_of_numbers_are_those_that_are_named() -> None:
    X = pd.DataFrame({"a": np.linspace(0, 1, 30), "leak": np.arange(30) % 2})
    clf = FusionClassifier(columns=["a"], epochs=1).fit(X, np.arange(30) % 2)
    assert clf.predictor_.processor.table.names == ["a"]
    with pytest.raises(ValueError, match="X has no column 'b'"):
        FusionClassifier(columns=["b"], epochs=1).fit(X, np.arange(30) % 2)


def test_image_paths_are_never_categories() -> None:
    X = pd.DataFrame({"photo": ["a.jpg", "b.JPG", None], "age": [30.0, 40.0, 50.0]})
    with pytest.raises(ValueError, match=r"Column 'photo' of X has image paths: pass image_column='photo'"):
        FusionClassifier(epochs=1).fit(X, [0, 1, 1])
    with pytest.raises(ValueError, match=r"X has no column 'photos' \(image_column\); it has photo, age"):
        FusionClassifier(image_column="photos", epochs=1).fit(X, [0, 1, 1])
