"""A shipped model on a custom table: other column names, missing columns, unused options."""

import csv
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import mmfusion
from mmfusion.cli.parsing import parse
from mmfusion.cli.unused import without_unused
from mmfusion.data.config import DatasetConfig, handed_on
from mmfusion.training.config import ModelConfig, RunConfig
from mmfusion.training.contents import check_contents

MODEL = "mibf_lite0.ham10000"
NAMES = {"age": "Age", "sex": "gender", "localization": "site"}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images with tables of the model's column names, of other names, and of image and label only."""
    root = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(0)
    facts = [("mel", "55", "male", "back"), ("nv", "30", "female", "face")] * 2
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(root / f"{i}.png")
    heads = {"right": "image,label,age,sex,localization", "other": "image,label,Age,gender,site", "il": "image,label"}
    for name, head in heads.items():
        rows = [",".join([f"{i}.png", *facts[i]][: head.count(",") + 1]) for i in range(4)]
        (root / f"{name}.csv").write_text("\n".join([head, *rows]) + "\n")
    return root


@pytest.fixture(scope="module")
def predictor() -> mmfusion.Predictor:
    return mmfusion.Predictor.from_pretrained(MODEL, columns=NAMES)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_columns_of_other_names_give_the_same(own: Path, tmp_path: Path, predictor: mmfusion.Predictor) -> None:
    right = mmfusion.predict(own / "right.csv", model=[MODEL])
    other = mmfusion.predict(own / "other.csv", model=[MODEL], dataset={"columns": NAMES})
    pd.testing.assert_frame_equal(right, other)
    assert right["inputs"].tolist() == ["image+text"] * 4
    rows = [row | {"image": own / row["image"]} for row in rows_of(own / "other.csv")]
    found = predictor.predict(rows)
    assert [each["inputs"] for each in found] == ["image+text"] * 4
    assert [each["probability"] for each in found] == pytest.approx(right["probability"].tolist(), rel=1e-4)
    given = DatasetConfig(columns=NAMES, label_column="label")
    pd.testing.assert_frame_equal(right, mmfusion.predict(own / "other.csv", model=[MODEL], dataset=given))
    with pytest.raises(ValueError, match="A row has 'age', but columns maps 'Age' to it"):
        predictor.predict([rows[0] | {"age": 50}])
    with pytest.raises(ValueError, match="'aeg'; did you mean"):
        mmfusion.Predictor.from_pretrained(MODEL, columns={"aeg": "Age"})


def test_what_is_lacking_is_told(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = mmfusion.predict(own / "other.csv", model=[MODEL])
    assert found["inputs"].tolist() == ["image"] * 4
    assert "is 'Age' meant for 'age'" in caplog.text and "{age: Age, sex: ..., localization: ...}" in caplog.text
    assert "no row has a text: the prediction is based on the image only" in caplog.text


def test_keys_that_nobody_reads(own: Path, predictor: mmfusion.Predictor, caplog: pytest.LogCaptureFixture) -> None:
    facts = {"Age": 50, "gender": "male", "site": "back"}
    with caplog.at_level(logging.WARNING):
        (blind,) = predictor.predict([{"imge": own / "0.png", **facts}])
    assert blind["inputs"] == "text"
    assert "'imge' (did you mean 'image'?)" in caplog.text and "no row has an image" in caplog.text
    caplog.clear()
    predictor.explain({"imge": own / "0.png", **facts})
    assert "'imge' (did you mean 'image'?)" in caplog.text
    plain, by_id = predictor.predict([{"image": own / "0.png", **facts}, {"image_id": own / "0.png", **facts}])
    assert plain == by_id
    (missing, empty) = predictor.predict([{"image": float("nan"), **facts}, {"image": "", **facts}])
    assert missing == empty and missing["probability"] == pytest.approx(blind["probability"])


def test_evaluate_and_explain_on_image_and_label_alone(own: Path, tmp_path: Path, capsys: Any) -> None:
    found = mmfusion.evaluate(own / "il.csv", model=[MODEL], output=tmp_path)
    assert "has no split: all 4 rows are evaluated" in capsys.readouterr().out
    assert found is not None and {row["inputs"] for row in rows_of(tmp_path / "predictions.csv")} == {"image"}
    mmfusion.explain(own / "il.csv", model=MODEL, output=tmp_path / "e", limit=1)
    assert (tmp_path / "e" / "0.json").is_file()


def test_subgroups_by_the_tables_own_names(own: Path, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": [MODEL], "dataset": {"columns": NAMES}, "output": tmp_path}
    found = mmfusion.evaluate(own / "other.csv", subgroups=["gender", "sex", "Age:50", "label"], **given).subgroups
    assert found is not None and found["gender"] == found["sex"]
    assert {part.value: part.n for part in found["gender"]} == {"male": 2, "female": 2}
    assert {part.value: part.n for part in found["Age"]} == {"0 to <50": 2, "50 to <100": 2}
    with pytest.raises(ValueError, match=r"no column 'age_' \(is it 'Age'\?\), 'gendr' \(is it 'gender'\?\); it has "):
        mmfusion.evaluate(own / "other.csv", subgroups=["age_", "gendr"], **given)


def test_a_partial_label_map(own: Path, tmp_path: Path) -> None:
    frame = pd.read_csv(own / "il.csv").assign(image=[str(own / f"{i}.png") for i in range(4)])
    frame["label"] = frame["label"].replace("mel", "melanoma")
    mmfusion.evaluate(frame, model=[MODEL], dataset={"label_map": {"melanoma": "mel"}}, output=tmp_path)
    assert [row["true_label"] for row in rows_of(tmp_path / "predictions.csv")] == ["mel", "nv"] * 2
    with pytest.raises(ValueError, match=r"'melanoma' in 2 rows.*makes it 'MELA', but the model knows akiec"):
        mmfusion.evaluate(frame, model=[MODEL], dataset={"label_map": {"melanoma": "MELA"}}, output=tmp_path / "b")


def test_options_that_a_command_does_not_use(own: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["--model", MODEL, "--data", str(own / "il.csv")]
    with pytest.raises(ValueError, match=r"predict does not use --dataset\.group_column; leave it out"):
        parse("predict", [*words, "--dataset.group_column", "patient"])
    by_group = parse("predict", [*words, "--dataset.group_column", "patient", "--by", "group"])
    assert by_group.dataset.group_column == "patient"
    for command, option in [("embed", "split_table"), ("audit", "check_images"), ("soup", "on_bad_column")]:
        given = {"embed": ["--data", "d", "--output", "o", "--model", MODEL], "audit": ["--data", "d"]}
        needed = given.get(command, ["--models", MODEL, MODEL, "--output", "o", "--data", "d"])
        with pytest.raises(ValueError, match=f"{command} does not use --dataset.{option}"):
            parse(command, [*needed, f"--dataset.{option}", "false" if option == "check_images" else "keep"])
    file = tmp_path / "run.yaml"
    file.write_text("dataset: {group_column: patient, columns: {age: Age}}\n")
    options = parse("predict", [*words, "--config", str(file)])
    assert options.dataset.group_column is None and options.dataset.columns == {"age": "Age"}
    assert capsys.readouterr().err == "predict does not use dataset.group_column, which the file has\n"
    assert parse("evaluate", [*words, "--dataset.group_column", "patient"]).dataset.group_column == "patient"
    # a dataclass has every option; those with default values were not set
    saved = {"numeric_columns": ["age"]}
    kept = without_unused("evaluate", vars(DatasetConfig()), saved, {"dataset.numeric_columns"})
    assert kept["numeric_columns"] == ["age"]


def test_a_model_hands_on_nothing_of_its_authors_files() -> None:
    author = DatasetConfig(table="t.csv", image_root="images", group_column="lesion_id", label_column="dx")
    kept = handed_on(vars(author))
    assert kept["label_column"] == "dx"
    assert kept.keys().isdisjoint({"table", "image_root", "group_column", "split_column", "columns", "text_template"})


def test_fine_tuning_without_the_models_columns_is_refused(own: Path) -> None:
    config = RunConfig(data=str(own / "other.csv"), model=ModelConfig(name=MODEL))
    with pytest.raises(ValueError, match=r"no column age, sex, localization.*dataset\.columns"):
        check_contents(config, mmfusion.data.read_cases(config.data))
