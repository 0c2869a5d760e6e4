"""The commands as functions: the same options, checks, results and one-line errors."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import mmfusion
from mmfusion.cli import verbs
from mmfusion.cli.calls import configured
from mmfusion.cli.commands import COMMANDS
from mmfusion.cli.parsing import parse
from mmfusion.data import Processor
from mmfusion.data.memory import MemoryTable
from mmfusion.training import ModelConfig, RunConfig, TrainConfig

#: commands that are not functions.
NO_VERBS = {"demo", "list", "info", "app"}


def test_every_command_is_a_function() -> None:
    functions = {
        name for name, value in vars(verbs).items() if inspect.isfunction(value) and value.__module__ == verbs.__name__
    }
    assert {name for name in functions if not name.startswith("_")} == COMMANDS.keys() - NO_VERBS
    for name in COMMANDS.keys() - NO_VERBS:
        assert getattr(mmfusion, name) is getattr(verbs, name)


def test_means_what_the_command_means(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("data: from_file\nseed: 4\ntrain: {epochs: 7, lr: 0.5}\n")
    words = [
        "--config",
        str(file),
        "--model.name",
        "test_mibf",
        "--train.lr",
        "1e-5",
        "--dataset.table_columns",
        "a",
        "b",
    ]
    words += ["--model.head_args", '{"dropout": 1e-5}', "--dataset.split_column", "null"]
    expected = parse("train", words)
    sections: dict[str, Any] = {"model": {"name": "test_mibf", "head_args": {"dropout": 1e-5}}, "train": {"lr": 1e-5}}
    dataset = {"table_columns": ["a", "b"], "split_column": None}
    assert configured("train", file, dataset=dataset, **sections) == expected
    assert (
        configured("train", str(file), dataset=dataset, train={"lr": np.float64(1e-5)}, model=sections["model"])
        == expected
    )
    dotted = {"train.lr": 1e-5, "model.name": "test_mibf", "model.head_args.dropout": 1e-5}
    assert configured("train", file, dataset=dataset, **dotted) == expected
    assert (expected.train.epochs, expected.seed, expected.data) == (7, 4, "from_file")
    changed = configured("train", expected, output=tmp_path / "elsewhere", train=TrainConfig(epochs=2))
    assert (changed.output, changed.train, changed.model) == (
        str(tmp_path / "elsewhere"),
        TrainConfig(epochs=2),
        expected.model,
    )


def test_tables_stay_tables() -> None:
    frame = pd.DataFrame({"image": ["a.png"], "label": ["x"]})
    config = configured("train", data=frame)
    assert isinstance(config.data, MemoryTable) and configured("train", config, seed=1).data is config.data
    run = RunConfig(data=frame, model=ModelConfig(name="test_mibf"))  # type: ignore[arg-type]
    study = configured("compare", run=run, vary={"model.fusion": ["add"]}, seeds=[3])
    assert study.run == run and isinstance(study.run.data, MemoryTable) and study.vary == {"model.fusion": ["add"]}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epochs": 3}, TypeError, "has no option 'epochs'; did you mean train={'epochs': ...}?"),
        ({"train": {"epoch": 3}}, TypeError, "has no option 'train.epoch'; did you mean train={'epochs': ...}?"),
        ({"outptu": "x"}, TypeError, "has no option 'outptu'; did you mean 'output'?"),
        ({"train": 3}, TypeError, "train is a dict or its dataclass, not int"),
        ({"train": {"lr": "fast"}}, ValueError, "train.lr expects float; got 'fast'"),
        ({"train": {"lr": -1.0}}, ValueError, "train.lr must be above 0"),
        ({"model": {"head_args": {"x": object()}}}, TypeError, "object is not a supported value"),
        ({"data": None}, ValueError, "Missing data"),
        ({"data": {"a": 1}}, TypeError, "a pandas DataFrame or a pyarrow Table, not dict"),
    ],
)
def test_mistakes(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        configured("train", **{"data": "x", **options})
    assert message in str(caught.value)


def test_checks_before_torch_as_the_command_does(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="does not exist"):
        mmfusion.train(tmp_path / "nowhere", model={"name": "test_mibf"})
    with pytest.raises(ValueError, match="did you mean 'test_mibf'"):
        mmfusion.train(pd.DataFrame({"image": ["a.png"], "label": ["x"]}), model={"name": "test_mibff"})


def test_train_evaluate_predict(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(toy)
    frame = pd.read_csv("cases.csv")
    sections: dict[str, Any] = {"model": {"name": "test_mibf"}, "processor": {"image_size": 32}}
    sections["train"] = {"epochs": 1, "batch_size": 8}
    run = mmfusion.train(frame, output=tmp_path / "run", **sections)
    assert run.evaluation is not None and run.predictor.labels == ["a", "b", "c"]

    found = mmfusion.evaluate(frame, model=run.folder, output=tmp_path / "evaluation")
    assert run.test is not None and found.figures["accuracy"] == run.test["accuracy"]

    predicted = mmfusion.predict(frame, model=run.folder)
    assert predicted["id"].tolist() == frame["image"].tolist() and predicted["error"].isna().all()
    probabilities = predicted[["p_a", "p_b", "p_c"]].to_numpy()
    assert np.abs(probabilities - run.predictor.predict_proba(frame)).max() < 1e-5
    broken = frame[:2].assign(image=["case0.png", "nowhere.png"], text=None)
    written = mmfusion.predict(broken, model=run.folder, output=tmp_path / "out.csv")
    assert written["error"].isna().tolist() == [True, False] and (tmp_path / "out.csv").is_file()

    drawn = mmfusion.split(frame, output=tmp_path / "split.csv", folds=2)
    assert sorted(drawn.cases.frame["fold"].value_counts()) == [18, 19] and (tmp_path / "split.csv").is_file()
    audited = mmfusion.audit(frame, output=tmp_path / "audit")
    assert (tmp_path / "audit" / "audit.md").is_file() and audited.summary()


def test_embed_takes_a_folder_of_images_alone(toy: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("case0.png", "case1.png"):
        (photos / name).write_bytes((toy / name).read_bytes())
    torch.manual_seed(0)
    model = mmfusion.create_model("test_image", num_classes=2)
    mmfusion.save_pretrained(model, tmp_path / "model", Processor(["a", "b"], image_size=32))
    done = mmfusion.embed(photos, model=tmp_path / "model", output=tmp_path / "bags")
    assert len(list((tmp_path / "bags").iterdir())) == 3 and "2" in done.summary()
