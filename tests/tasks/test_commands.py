"""Every task through train, evaluate, predict, explain, export and compare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

import mmfusion
from mmfusion.data import DatasetConfig, read_cases
from mmfusion.experiments.comparison import compare
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.serving import diagnose
from mmfusion.training import ModelConfig, RunConfig, TrainConfig, train
from mmfusion.training.check import check_settings

#: task -> options of its labels, and the columns of its predictions.
TASKS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "multiclass": ({}, ["label", "probability", "p_a", "p_b", "p_c"]),
    "multilabel": ({"label_columns": ["mel", "nv"]}, ["label", "probability", "p_mel", "p_nv"]),
    "ordinal": ({"label_column": "grade"}, ["label", "probability", "p_1", "p_2", "p_3"]),
    "regression": ({"label_column": "size"}, ["value", "low", "high"]),
}


def table(rows: int = 90) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 2))
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(rows)], "u": x[:, 0].round(3), "v": x[:, 1].round(3)})
    noisy = x[:, 0] + rng.normal(size=rows)
    frame["label"] = np.array(["a", "b", "c"])[np.digitize(noisy, [-0.5, 0.5])]
    frame["grade"] = np.digitize(noisy, [-0.5, 0.5]) + 1
    frame["size"] = (50 + 10 * noisy).round(2)
    frame["mel"], frame["nv"] = (noisy > 0).astype(int), pd.Series((x[:, 1] > 0).astype(int)).astype(object)
    frame.loc[frame.index % 5 == 0, "nv"] = ""
    frame["split"] = ["train"] * 40 + ["val"] * 30 + ["test"] * 20
    return frame


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tasks") / "cases.csv"
    table().to_csv(path, index=False)
    return path


def run_of(task: str, data: Path, output: Path, **train_args: Any) -> RunConfig:
    dataset = DatasetConfig(
        id_column="id", numeric_columns=["u", "v"], on_bad_column="keep", columns={}, **TASKS[task][0]
    )
    if task != "multiclass":
        dataset = replace(dataset, label_column=TASKS[task][0].get("label_column", "labels"))
    given = {"epochs": 1, "batch_size": 8, "precision": "fp32", **train_args}
    model = ModelConfig(name="table_mlp", task=task, table_args={"dim": 8})
    return RunConfig(data=str(data), output=str(output), dataset=dataset, model=model, train=TrainConfig(**given))


@pytest.fixture(scope="module", params=TASKS)
def trained(request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    train(run_of(request.param, data, folder))
    return request.param, folder


def test_train_evaluate_predict(trained: tuple[str, Path], data: Path, tmp_path: Path) -> None:
    task, folder = trained
    stored = yaml.safe_load((folder / "config.yaml").read_text())
    assert stored["dataset"]["task"] == task and stored["train"]["loss"] != "auto"
    model = f"local-dir:{folder}"
    found = mmfusion.evaluate(
        model=[model], data=str(data), validation=True, report=True, output=str(tmp_path / "eval")
    )
    assert found.n == 20 and set(found.intervals.figures) == set(found.figures)
    assert (tmp_path / "eval" / "report.html").read_text().count("data-rule") and found.summary()
    assert f"Task: `{task}`" in (folder / "best" / "README.md").read_text() or task == "multiclass"
    told = mmfusion.predict(model=[model], data=str(data), output=str(tmp_path / "p.csv"))
    assert [*told.columns] == ["id", *TASKS[task][1], "inputs", "familiarity", "unlike", "error"] and len(told) == 90
    predictor = mmfusion.Predictor.from_pretrained(model)
    (row,) = predictor.predict([{"u": told_u, "v": 0.0} for told_u in [1.0]])
    again = mmfusion.Predictor.from_pretrained([model, model]).predict([{"u": 1.0, "v": 0.0}])[0]
    name = "value" if task == "regression" else "probability"
    assert again[name] == pytest.approx(row[name], rel=1e-4), "the mean of a model and itself"
    assert 0 <= row[name] <= 1 or task == "regression"


def test_values_are_told_in_their_unit(trained: tuple[str, Path], data: Path, tmp_path: Path) -> None:
    task, folder = trained
    if task != "regression":
        pytest.skip("labels have no unit")
    told = mmfusion.predict(model=[f"local-dir:{folder}"], data=str(data), output=str(tmp_path / "p.csv"))
    assert (
        30 < told["value"].mean() < 70 and (told["low"] < told["value"]).all() and (told["value"] < told["high"]).all()
    )
    true = pd.read_csv(data)["size"]
    val = slice(40, 70)
    inside = (told["low"] <= true) & (true <= told["high"])
    assert inside[val].mean() == pytest.approx(28 / 30, abs=0.01), "ceil(31 * 0.9) of the 30 rows they were fitted on"


def test_explain_and_export(trained: tuple[str, Path], data: Path, tmp_path: Path) -> None:
    task, folder = trained
    model = f"local-dir:{folder}"
    mmfusion.explain(model=model, data=str(data), output=str(tmp_path / "why"), limit=1)
    assert len([*(tmp_path / "why").iterdir()]) == 2
    mmfusion.export(model=model, output=str(tmp_path / "onnx"))
    before = mmfusion.predict(model=[model], data=str(data), output=str(tmp_path / "p.csv"))
    after = mmfusion.predict(model=[f"local-dir:{tmp_path / 'onnx'}"], data=str(data), output=str(tmp_path / "q.csv"))
    numbers = [name for name in TASKS[task][1] if name != "label"]
    np.testing.assert_allclose(before[numbers].astype(float), after[numbers].astype(float), rtol=1e-4, atol=1e-5)


def test_one_case_for_an_application(trained: tuple[str, Path]) -> None:
    task, folder = trained
    predictor, row = mmfusion.Predictor.from_pretrained(f"local-dir:{folder}"), {"u": 0.1, "v": 0.0}
    assert f"{predictor.task.noun}: {len(predictor.labels)} (" in repr(predictor)
    rule = (
        {"method": "adjacent", "thresholds": [0.0]} if task == "ordinal" else {"method": "lac", "thresholds": [0.0] * 3}
    )
    predictor.calibration = {"temperature": 1.0, "fitted_on": "val", "n": 60, "conformal": {"coverage": 0.9, **rule}}
    if task == "regression":
        predictor.calibration = {"quantiles": [1.0], "coverage": 0.9, "fitted_on": "val", "n": 60}
        with pytest.raises(ValueError, match="The task regression has no probabilities; use predict for values"):
            predictor.predict_proba([row])
    if task == "multilabel":
        predictor.calibration = {"temperature": [1.0, 2.0], "fitted_on": "val", "n": 60}
    found, (plain,) = diagnose(predictor, row, explain=False), predictor.predict([row])
    assert found.numbers == plain.get("values") and found.label == plain.get("label")
    assert found.likely == ([found.label] if task in ("multiclass", "ordinal") else None)


def test_what_needs_one_class_a_row_is_refused(trained: tuple[str, Path], data: Path, tmp_path: Path) -> None:
    task, folder = trained
    model = f"local-dir:{folder}"
    asked: dict[str, Any] = {
        "operating_points": lambda: mmfusion.evaluate(
            model=[model], data=str(data), operating_points=["sensitivity>=0.9"], output=str(tmp_path / "e")
        ),
        "by group": lambda: mmfusion.predict(
            model=[model], data=str(data), by="group", output=str(tmp_path / "p.csv"), dataset={"group_column": "id"}
        ),
        "validate": lambda: mmfusion.validate(model=model, data=str(data), output=str(tmp_path / "v")),
        "train.alarm": lambda: check_settings(run_of(task, data, tmp_path, alarm=["a"])),
    }
    for what, call in asked.items():
        if task in ("multiclass", "ordinal"):
            call()
        else:
            with pytest.raises(ValueError, match=f"^{what} needs one class per row and does not support task {task}"):
                call()


@pytest.mark.parametrize("task", [name for name in TASKS if name != "multiclass"])
def test_compare(task: str, data: Path, tmp_path: Path) -> None:
    base = run_of(task, data, tmp_path / "unused")
    rows = {"slow": {"train.lr": 1e-5}}
    experiment = ExperimentConfig(
        run=base, rows=rows, baselines=False, seeds=[0], output=str(tmp_path / "x"), replicates=20
    )
    found = compare(experiment)
    assert [row.row.name for row in found.results] == ["base", "slow"] or len(found.results) == 2
    assert found.config.metric == mmfusion.tasks.task_named(task).metric
    assert all(len(row.figures) > 3 and not row.runs[(0, None)].get("error") for row in found.results)


@pytest.mark.parametrize(
    ("task", "loss", "words"),
    [
        (
            "multilabel",
            "ce",
            "supports the task multiclass and ordinal, not multilabel; train.loss must be one of asymmetric, bce",
        ),
        ("multiclass", "huber", "not multiclass"),
        ("regression", "bce", "one of gaussian, huber"),
    ],
)
def test_losses_serve_the_tasks_that_they_name(task: str, loss: str, words: str, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=words):
        check_settings(run_of(task, data, tmp_path, loss=loss))


@pytest.mark.parametrize(
    ("task", "loss", "width", "form"),
    [("ordinal", "corn", 2, None), ("ordinal", "cumulative_link", 2, "cumulative"), ("ordinal", "ce", 3, "softmax")],
)
def test_the_loss_decides_the_form(
    task: str, loss: str, width: int, form: str | None, data: Path, tmp_path: Path
) -> None:
    result = train(run_of(task, data, tmp_path / "run", loss=loss))
    model = result.predictor.network()
    assert model.config.get("task_args", {}).get("form") == form
    output = model(numeric_values=result.predictor.processor(table=[{"u": 0.0, "v": 0.0}])["numeric_values"])
    assert output.logits.shape == (1, width)
    assert result.predictor.predict_proba([{"u": 0.0, "v": 1.0}]).sum() == pytest.approx(1, abs=1e-6)


def test_cells_of_several_labels(tmp_path: Path) -> None:
    cells = ["edema; effusion", "edema", "effusion; nodule", "nodule", "-", "edema; nodule"]
    frame = pd.DataFrame({"id": [*"abcdef"], "label": cells, "image": None, "text": "x"})
    cases = read_cases(frame, DatasetConfig(task="multilabel", id_column="id"))
    assert cases.labels == ["edema", "effusion", "nodule"]
    with pytest.raises(ValueError, match="--task multilabel"):
        read_cases(frame, DatasetConfig(id_column="id")).check_labels(DatasetConfig())
    task = mmfusion.tasks.task_named("multilabel", cases.labels)
    read = task.encoded([*cases.frame["label"], None, "edema|?nodule"])
    assert read[0].tolist() == [1, 1, 0] and read[4].tolist() == [0, 0, 0] and np.isnan(read[6]).all()
    assert read[7].tolist()[:2] == [1, 0] and np.isnan(read[7][2])
    assert [task.written(row) for row in read[[0, 4, 6, 7]]] == ["edema|effusion", "-", "", "edema|?nodule"]


def test_grades_in_a_given_order(tmp_path: Path) -> None:
    frame = pd.DataFrame({"label": ["mild", "none", "severe", "mild"], "image": None, "text": "x"})
    with pytest.raises(ValueError, match=r"list them in order in dataset\.grades"):
        read_cases(frame, DatasetConfig(task="ordinal")).check_labels(DatasetConfig())
    cases = read_cases(frame, DatasetConfig(task="ordinal", grades=["none", "mild", "severe"]))
    assert cases.check_labels(DatasetConfig()).labels == ["none", "mild", "severe"]


def test_the_estimators() -> None:
    frame = table()
    X, settings = frame[["u", "v"]], {"model.table_args": {"dim": 8}}
    options: dict[str, Any] = {"model": "table_mlp", "epochs": 1, "batch_size": 8, "settings": settings}
    several = mmfusion.FusionClassifier(task="multilabel", **options).fit(X, frame[["mel", "nv"]])
    assert several.predict_proba(X).shape == several.predict(X).shape == (90, 2)
    assert several.classes_.tolist() == ["mel", "nv"]
    grades = mmfusion.FusionClassifier(task="ordinal", **options).fit(X, frame["grade"])
    assert set(grades.predict(X)) <= {1, 2, 3} and grades.predict_proba(X).sum(axis=1) == pytest.approx(np.ones(90))
    numbers = mmfusion.FusionRegressor(validation_fraction=0.3, **options).fit(X, frame["size"])
    low, high = numbers.predict_interval(X)
    assert numbers.predict(X).shape == (90,) and (low < high).all() and abs(numbers.predict(X).mean() - 50) < 15
