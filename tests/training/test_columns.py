"""Columns in a run: used and refused ones, messages, and models that read them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tiny_runs import run_config

import mmfusion
from mmfusion.data import DatasetConfig, read_cases
from mmfusion.training import ModelConfig, RunConfig, TrainConfig, train
from mmfusion.training.columns import choose_columns

ROWS = 150


def clinic(rows: int = ROWS, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of three classes; age and marker depend on them, the code slightly."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(rows):
        label = "abc"[int(rng.integers(3))]
        age = int(np.clip(rng.normal({"a": 35, "b": 50, "c": 65}[label], 15), 0, 99))
        found.append(
            {
                "label": label,
                "age": "" if i % 11 == 5 else age,
                "sex": ["male", "female"][int(rng.random() < 0.5)],
                "marker": f"{rng.normal(1, 0.4):.3f}",
                "stage": int(rng.integers(0, 4)),
                "split": ["train"] * 8 + ["val", "test"],
            }
        )
        found[-1]["split"] = ["train", "train", "train", "val", "test"][i % 5]
    return found


def write(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


def chosen(folder: Path, **options: Any) -> Any:
    config = DatasetConfig(**{"table_columns": "auto", **options})
    return choose_columns(read_cases(folder, config).resolve("skip").split_or_draw(config), config)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clinic"), clinic())


def columns_run(
    data: Path, output: Path, model: str = "table_mlp", dataset: dict[str, Any] | None = None, **train: Any
) -> RunConfig:
    config = run_config(data, output, model, **train)
    config.dataset = DatasetConfig(**({"table_columns": "auto"} if dataset is None else dataset))
    return config


def test_auto_takes_what_may_be_an_input(table: Path) -> None:
    found = chosen(table)
    assert [column.name for column in found.table.numeric] == ["age", "marker"]
    assert [column.name for column in found.table.categorical] == ["sex", "stage"]
    assert found.left_out == {} and found.codes == ["stage"]
    summary = found.summary()
    assert "number" in found.taken["age"] and "missing" in found.taken["age"]
    assert "whole numbers with few values (stage)" in summary
    assert [c.name for c in chosen(table, numeric_columns=["stage"]).table.numeric] == ["age", "marker", "stage"]


def test_rows_that_are_not_trained_on_change_nothing(table: Path, tmp_path: Path) -> None:
    rows = clinic()
    for row in rows:
        if row["split"] != "train":
            row |= {"age": "9999", "sex": "other", "marker": "inf", "stage": "17"}
    assert chosen(write(tmp_path, rows)).table == chosen(table).table


def test_the_order_of_columns_in_the_file_changes_nothing(table: Path, tmp_path: Path) -> None:
    turned = [dict(reversed(row.items())) for row in clinic()]
    assert chosen(write(tmp_path, turned)).table == chosen(table).table


REFUSED: dict[str, tuple[Callable[[int, dict[str, Any]], Any], str]] = {
    "note": (lambda i, row: f"patient called {i}", "identifies rows: 90 distinct texts"),
    "PatientID": (lambda i, row: 1000 + (i * 7919) % 5000, "identifies rows or patients"),
    "row_number": (lambda i, row: i, "numbers the rows, 0 to 147"),
    "visit": (lambda i, row: f"{1 + i % 28:02}.0{1 + i % 9}.2021", "contains dates"),
    "StudyDate": (lambda i, row: f"2021{1 + i % 12:02}{1 + i % 28:02}", "contains dates"),
    "grade_code": (lambda i, row: {"a": "x", "b": "y", "c": "z"}[row["label"]], "reveals the label by itself"),
    "histology": (lambda i, row: ["p", "q"][i % 2], "reveals the label, by its name"),
    "fold": (lambda i, row: i % 10, "reveals the split of a row"),
    "centre": (lambda i, row: {"train": "A", "val": "B", "test": "C"}[row["split"]], "has one value"),
    "country": (lambda i, row: "here", "has one value"),
    "rare_flag": (lambda i, row: int(i < 4), "in all but"),
    "empty": (lambda i, row: "", "is empty"),
    "comma": (lambda i, row: f"{30 + i % 40},5", "decimal comma"),
    "remark": (lambda i, row: f"seen by {i % 19}" if i % 2 else "", "almost unique"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_may_not_be_an_input_is_left_out_and_refused_by_name(tmp_path: Path, name: str) -> None:
    make, reason = REFUSED[name]
    data = write(tmp_path, [row | {name: make(i, row)} for i, row in enumerate(clinic())])
    found = chosen(data)
    assert list(found.left_out) == [name] and reason in found.left_out[name]
    if name == "histology":
        return  # the name alone, without any sign in the cells, does not exclude a requested column
    with pytest.raises(ValueError, match=rf"unsuitable columns are named as inputs: '{name}' .*{reason.split(',')[0]}"):
        chosen(data, table_columns=["age", name])


def test_columns_with_another_part_are_refused(table: Path) -> None:
    for options, message in (
        ({"table_columns": ["Age", "heart"]}, r"no column 'Age' \(named as an input; is it 'age'\?\), 'heart' \(named"),
        ({"table_columns": ["label"]}, "dataset.label_column"),
        ({"table_columns": ["sex"], "group_column": "sex"}, "dataset.group_column"),
        ({"table_columns": None, "numeric_columns": ["sex"]}, "is not a number in 100% of its cells"),
    ):
        with pytest.raises(ValueError, match=message):
            chosen(table, **options)


def test_columns_alone_train_fast_and_every_age_has_its_own_probability(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(columns_run(table, tmp_path / "run", epochs=6))
    shown = capsys.readouterr().out
    assert shown.index("columns used as inputs:") < shown.index("training table_mlp")
    predictor = result.predictor
    told = predictor.predict([{"age": age} for age in range(100)])
    assert len({row["probabilities"]["a"] for row in told}) == 100
    assert told[20]["probabilities"]["a"] > told[80]["probabilities"]["a"]
    saved = json.loads((result.best / "config.json").read_text())
    assert saved["processor"]["table"]["numeric"][0]["name"] == "age"
    assert saved["training"]["dataset"]["numeric_columns"] == ["age", "marker"]
    assert saved["training"]["dataset"]["table_columns"] is None
    assert not [path for path in result.best.iterdir() if path.suffix in (".pkl", ".bin", ".pt")]
    card = (result.best / "README.md").read_text()
    assert "`sex`: category, 2 values: female, male" in card
    # the model scales by the statistics of the training rows
    scaled = predictor.network().table_tower.numeric.standardize
    assert scaled.mean.tolist() == pytest.approx([c.mean for c in predictor.processor.table.numeric])


def test_the_parts_that_the_rows_ask_for_are_told_and_saved(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = list(csv.DictReader((toy / "cases.csv").open()))
    data = tmp_path / "data"
    data.mkdir()
    for i, row in enumerate(rows):
        (data / row["image"]).write_bytes((toy / row["image"]).read_bytes())
        row |= {"text": "", "age": str(30 + 5 * (i % 9)), "sex": "mf"[i % 2]}
    write(data, rows)
    result = train(columns_run(data, tmp_path / "run", "test_mibf", epochs=1))
    shown = capsys.readouterr().out
    assert "the columns are encoded by table_mlp (model.table_encoder)" in shown
    assert "no training row has a text: the text encoder is dropped (model.text_encoder none)" in shown
    config = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["model"]
    assert (config["table_encoder"], config["text_encoder"]) == ("table_mlp", "none")
    assert list(result.predictor.network().towers) == ["image", "table"]
    # resumes with the settings as they were given
    again = columns_run(data, tmp_path / "run", "test_mibf", epochs=1, resume=True)
    assert train(again).best_epoch == 1


def test_frozen_towers_are_cached_and_columns_are_read_beside_them(toy: Path, tmp_path: Path) -> None:
    rows = list(csv.DictReader((toy / "cases.csv").open()))
    data = tmp_path / "data"
    data.mkdir()
    for i, row in enumerate(rows):
        (data / row["image"]).write_bytes((toy / row["image"]).read_bytes())
        row |= {"age": str(30 + 5 * (i % 9)), "sex": "mf"[i % 2]}
    write(data, rows)
    measured = []
    for cache in (None, str(tmp_path / "cache")):
        config = columns_run(
            data, tmp_path / f"run-{cache is None}", "plain", epochs=2, freeze_encoders=True, feature_cache=cache
        )
        config.processor.augment = "none"
        result = train(config)
        measured.append(result.test["nll"])
        before = result.predictor.network()
    assert measured[0] == pytest.approx(measured[1], abs=1e-4)
    assert sorted(path.name.split("-")[0] for path in (tmp_path / "cache").iterdir()) == ["image", "text"]
    assert before.config["table_encoder"] == "table_mlp"


def test_a_saved_model_keeps_its_columns(table: Path, tmp_path: Path) -> None:
    first = train(columns_run(table, tmp_path / "first", epochs=1))
    name = f"local-dir:{first.best}"
    again = train(columns_run(table, tmp_path / "again", name, epochs=1))
    assert again.predictor.processor.table == first.predictor.processor.table
    lacking = write(tmp_path / "lacking", [{k: v for k, v in row.items() if k != "sex"} for row in clinic()])
    with pytest.raises(ValueError, match="has no column 'sex'"):
        train(columns_run(lacking, tmp_path / "c", name, {}, epochs=1))
    more = write(tmp_path / "more", [row | {"height": 170} for row in clinic()])
    with pytest.raises(ValueError, match="uses age, marker, sex, stage, not height"):
        train(columns_run(more, tmp_path / "d", name, {"table_columns": ["height"]}, epochs=1))


def test_a_run_that_lacks_its_inputs_is_refused(table: Path, toy: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no training row has an image, which test_mibf needs"):
        train(columns_run(table, tmp_path / "a", "test_mibf"))
    with pytest.raises(ValueError, match=r"select them with --dataset\.table_columns auto"):
        train(run_config(toy, tmp_path / "b", "table_mlp"))


def test_predictions_tell_what_the_model_does_not_know(
    table: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    predictor = train(columns_run(table, tmp_path / "run", epochs=1)).predictor
    caplog.clear()
    whole = {"age": 40, "sex": "male", "marker": 1.1, "stage": 2}
    one, two = predictor.predict([whole, dict(reversed(whole.items()))])
    assert one == two and not caplog.messages
    predictor.predict([whole | {"sex": "M", "age": "57,5"}])
    assert [message.split(":")[0] for message in caplog.messages] == ["age", "sex"]
    caplog.clear()
    (found,) = predictor.predict([{"Age": 40, "marker": 1, "stage": 1}])
    assert caplog.messages == [
        "the rows have no column age, sex, which the model uses; treated as missing; is 'Age' meant for 'age'? "
        "map them with dataset.columns: {age: Age, sex: ...}",
        "the rows have keys that the model does not use: 'Age' (did you mean 'age'?)",
    ]
    assert "label" in found
    caplog.clear()
    (nothing,) = predictor.predict([{}])
    assert nothing["error"] == "The row has no column for the model."
    measured = mmfusion.Predictor.from_pretrained(f"local-dir:{tmp_path / 'run'}").predict([whole])
    assert list(measured[0]["probabilities"].values()) == pytest.approx(list(one["probabilities"].values()), abs=1e-6)


def test_a_missing_cell_changes_nothing_of_other_rows(table: Path, tmp_path: Path) -> None:
    predictor = train(columns_run(table, tmp_path / "run", epochs=1)).predictor
    row = {"age": 40, "sex": "male", "marker": 1.1, "stage": 2}
    alone = predictor.predict([row])[0]["probabilities"]
    among = predictor.predict([{"age": None, "sex": "female"}, row, {"stage": 1}])[1]["probabilities"]
    assert torch.allclose(torch.tensor(list(alone.values())), torch.tensor(list(among.values())), atol=1e-6)


def test_a_run_is_not_resumed_with_another_table_tower(table: Path, tmp_path: Path) -> None:
    """The refusal leaves the folder unchanged, so that the run can continue with the right setting."""
    dataset = DatasetConfig(table_columns="auto")
    model: dict[str, Any] = {"name": "test_text", "table_encoder": "ft_transformer", "encoder_weights": "none"}

    def config(**part: Any) -> RunConfig:
        own = ModelConfig(**{**model, **part, "text_encoder": "none"})
        return RunConfig(str(table), str(tmp_path / "run"), dataset=dataset, model=own, train=TrainConfig(epochs=1))

    train(config())
    before = (tmp_path / "run" / "config.yaml").read_text()
    again = config(table_encoder=None)
    again.train.resume = True
    with pytest.raises(ValueError, match=r"model\.table_encoder"):
        train(again)
    assert (tmp_path / "run" / "config.yaml").read_text() == before


def test_an_empty_column_that_is_kept_is_a_category_without_values(tmp_path: Path) -> None:
    rows = [{**row, "empty": ""} for row in clinic()]
    kept = chosen(write(tmp_path, rows), table_columns=None, categorical_columns=["empty", "sex"], on_bad_column="keep")
    assert [(column.name, column.values) for column in kept.table.categorical] == [
        ("empty", []),
        ("sex", ["female", "male"]),
    ]
