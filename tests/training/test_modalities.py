"""A modality that no training row has: refused before an image is opened, or left out with a message."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from mmfusion.data import DatasetConfig, read_cases
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.run import predict_path
from mmfusion.models.factory import resolve_config
from mmfusion.training import RunConfig, TrainConfig, train
from mmfusion.training.build import with_parts
from mmfusion.training.contents import check_contents


def without(toy: Path, folder: Path, column: str) -> Path:
    """The toy data with an empty column, and images that cannot be opened."""
    folder.mkdir()
    rows = list(csv.DictReader((toy / "cases.csv").open()))
    for row in rows:
        (folder / row["image"]).write_bytes(b"no image")
        row[column] = ""
    with (folder / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return folder


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("text", ["no training row has a text", "--dataset.text_column", "--dataset.text_template"]),
        ("image", ["no training row has an image", "--dataset.image_column"]),
    ],
)
def test_a_modality_that_no_training_row_has(
    make_config: Callable[..., RunConfig], toy: Path, tmp_path: Path, column: str, words: list[str]
) -> None:
    dataset = DatasetConfig(**{f"{column}_column": column})
    config = replace(make_config(), data=str(without(toy, tmp_path / "data", column)), dataset=dataset)
    with pytest.raises(ValueError, match=words[0]) as error:
        train(config)
    assert all(word in str(error.value) for word in [*words, f"--model.{column}_encoder none"])


@pytest.mark.parametrize("architecture", ["test_mibf", "seq_transformer_lite0"])
def test_a_text_tower_that_no_training_row_feeds_is_left_out(
    make_config: Callable[..., RunConfig], toy: Path, architecture: str
) -> None:
    cases = read_cases(toy).select("train")
    cases.frame["text"] = None
    config = replace(make_config(model=architecture), dataset=DatasetConfig())
    assert "text 0" in check_contents(config, cases)
    left, told = with_parts(config, cases, None)
    assert left.model.text_encoder == "none"
    assert told == ["no training row has a text: the text encoder is dropped (model.text_encoder none)"]
    assert resolve_config(architecture, **left.model.overrides())["fusion"] is None
    # a requested modality is not left out
    for section, asked in (
        ("dataset", {"text_column": "text"}),
        ("dataset", {"text_template": "{text}"}),
        ("model", {"text_encoder": "bert_tiny"}),
        ("model", {"fusion": "gated"}),
        ("train", {"loss": "mp"}),
    ):
        with pytest.raises(ValueError, match="no training row has a text, which"):
            check_contents(replace(config, **{section: replace(getattr(config, section), **asked)}), cases)


def test_few_rows_make_one_step(make_config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]) -> None:
    config = make_config(model="test_image", epochs=1, batch_size=TrainConfig.batch_size)
    train(config)
    assert "only 24 training rows: using all of them in one step (train.batch_size 24)" in capsys.readouterr().out
    assert yaml.safe_load((Path(config.output) / "config.yaml").read_text())["train"]["batch_size"] == 24
    assert train(replace(config, train=replace(config.train, resume=True))).best_epoch == 1


def test_the_first_line_says_what_the_training_rows_hold(
    make_config: Callable[..., RunConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    train(make_config(epochs=1))
    assert capsys.readouterr().out.splitlines()[0] == "24 training rows: image 24, text 19"


def test_a_model_of_two_modalities_on_images_alone_says_so(
    trained: RunConfig,
    toy: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    predictor = Predictor.from_pretrained(f"local-dir:{trained.output}")
    (tmp_path / "cases.csv").write_text("image\ncase0.png\ncase1.png\n")
    for name in ("case0.png", "case1.png"):
        (tmp_path / name).write_bytes((toy / name).read_bytes())
    predict_path(predictor, tmp_path, tmp_path.parent / f"{tmp_path.name}.csv")
    assert "2 rows: image 2, text 0" in capsys.readouterr().out
    assert "no row has a text: the prediction is based on the image only" in caplog.text


def test_a_template_that_is_given_makes_the_texts(
    trained: RunConfig, toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("case0.png", "case1.png"):
        (tmp_path / name).write_bytes((toy / name).read_bytes())
    (tmp_path / "cases.csv").write_text("image,hue\ncase0.png,red\ncase1.png,red\n")
    plain, told = (tmp_path.parent / f"{tmp_path.name}-{name}.csv" for name in ("plain", "told"))
    name = f"local-dir:{trained.output}"
    predict_path(Predictor.from_pretrained(name), tmp_path, plain, dataset=DatasetConfig())
    predict_path(Predictor.from_pretrained(name), tmp_path, told, dataset=DatasetConfig(text_template="a {hue} spot"))
    said = capsys.readouterr().out
    assert "text 0" in said and "text 2, columns hue 100 %" in said and "using the text template 'a {hue} spot'" in said
    assert plain.read_text() != told.read_text()
