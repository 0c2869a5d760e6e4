"""The runs of a study."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mmfusion.data import DatasetConfig
from mmfusion.experiments import ExperimentConfig
from mmfusion.experiments.plan import plan_rows, plan_runs
from mmfusion.training import ModelConfig, RunConfig, TrainConfig


def study(**settings: Any) -> ExperimentConfig:
    run = RunConfig(data="d", model=ModelConfig(name="test_mibf", fusion="concat", fusion_args={}))
    return ExperimentConfig(**{"run": run, **settings})


def test_each_row_differs_in_one_thing() -> None:
    config = study(
        vary={"model.fusion": ["concat", "gated"], "train.lr": [1e-4, 1e-3]},
        rows={"focal": {"train.loss": "focal", "train.loss_args": {"gamma": 1.0}}},
        base={"train.epochs": 3},
    )
    rows = plan_rows(config)
    # 1e-3 is the default of train.lr: both values equal to the base's have its name
    assert [(row.name, row.kind) for row in rows] == [
        ("fusion=concat, lr=0.001", "base"),
        ("image alone", "baseline"),
        ("text alone", "baseline"),
        ("fusion=gated", "variant"),
        ("lr=0.0001", "variant"),
        ("focal", "variant"),
    ]
    base, image, text, gated, slow, focal = (row.config for row in rows)
    assert all(row.config.train.epochs == 3 for row in rows)
    assert (image.model.text_encoder, image.model.fusion, image.model.fusion_args) == ("none", None, None)
    assert (text.model.image_encoder, text.model.fusion, text.processor.augment) == ("none", None, "none")
    assert gated.model.fusion == "gated" and gated.train == base.train
    assert slow.train.lr == 1e-4 and slow.model == base.model
    assert focal.train.loss_args == {"gamma": 1.0}


def test_a_base_that_no_value_names_is_called_base() -> None:
    assert [row.name for row in plan_rows(study(vary={"train.lr": [1.0]}, baselines=False))] == ["base", "lr=1"]


def test_baselines_by_name() -> None:
    names = {"modalities", "prior", "gradient_boosting"}
    rows = plan_rows(study(vary={"train.lr": [0.5]}, baselines=["prior", "gradient_boosting"]))
    assert [(row.name, row.kind, row.reference) for row in rows[1:]] == [
        ("prior", "baseline", "prior"),
        ("gradient_boosting", "baseline", "gradient_boosting"),
        ("lr=0.5", "variant", None),
    ]
    assert rows[1].config == rows[0].config
    assert len(plan_rows(study(vary={"train.lr": [0.5]}, baselines=sorted(names)))) == 6
    with pytest.raises(ValueError, match="baselines='knn' is not one of"):
        study(baselines=["knn"])


def test_one_modality_has_no_disagreement() -> None:
    run = RunConfig(data="d", train=TrainConfig(loss="mp", loss_args={"alpha": 0.5}))
    rows = plan_rows(ExperimentConfig(run=run, vary={"train.lr": [0.1]}))
    assert [(row.config.train.loss, row.config.train.loss_args) for row in rows] == [
        ("mp", {"alpha": 0.5}),
        ("ce", {}),
        ("ce", {}),
        ("mp", {"alpha": 0.5}),
    ]


def test_runs_go_seed_by_seed_and_fold_by_fold() -> None:
    config = study(vary={"train.lr": [0.1]}, baselines=False, seeds=[0, 7], output="out")
    rows = plan_rows(config)
    runs = list(plan_runs(config, rows, {None: {}}))
    assert [str(run) for run in runs] == ["base, seed 0", "lr=0.1, seed 0", "base, seed 7", "lr=0.1, seed 7"]
    assert runs[3].config.output == "out/runs/lr=0.1/seed-7" and runs[3].config.seed == 7
    splits = {test: {"dataset.folds": {"test": [test], "val": [val]}} for test, val in ["01", "12", "20"]}
    folded = list(plan_runs(config, rows, splits))
    assert [run.config.dataset.folds for run in folded[:3]] == [
        {"test": [0], "val": [1]},
        {"test": [1], "val": [2]},
        {"test": [2], "val": [0]},
    ]
    assert str(folded[0]) == "base, seed 0, fold 0" and folded[2].config.output == "out/runs/base/seed-0/fold-2"
    assert len({run.config.output for run in folded}) == len(folded) == 12


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "no row besides its base"),
        ({"vary": {"train.lr": [1e-3]}}, "no row besides its base"),
        ({"vary": {"model.fusoin": ["add"]}}, "Unknown setting 'model.fusoin'; did you mean 'fusion'"),
        ({"vary": {"train.lr": [0.1]}, "rows": {"lr=0.1": {"train.lr": 0.2}}}, "Two rows of the experiment are named"),
        (
            {"rows": {"a/b": {"train.lr": 0.2}, "a b": {"train.lr": 0.3}}},
            "The rows 'a/b' and 'a b' would share a folder",
        ),
        ({"rows": {"ä": {"train.lr": 0.2}}}, "would share a folder"),
        ({"vary": {"train.lr": [0.1]}, "base": {"model.text_encoder": "none"}}, "set baselines: false"),
    ],
)
def test_studies_that_make_no_sense(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        plan_rows(study(**settings))


def test_each_modality_alone_beside_columns() -> None:
    def rows_of(**dataset: object) -> dict[str, RunConfig]:
        run = RunConfig(data="d", dataset=DatasetConfig(**dataset), model=ModelConfig(name="test_mibf"))
        return {row.name: row.config for row in plan_rows(ExperimentConfig(run=run, vary={"train.lr": [0.1]}))}

    rows = rows_of(table_columns="auto", text_template="{age}")
    assert [*rows] == ["base", "image alone", "text alone", "columns alone", "lr=0.1"]
    assert rows["columns alone"].dataset.table_columns == "auto" and rows["text alone"].dataset.table_columns is None
    columns = rows["columns alone"].model
    assert (columns.image_encoder, columns.text_encoder, columns.table_encoder) == ("none", "none", None)
    # the settings name no text: the base may have none
    assert [*rows_of(numeric_columns=["age"])] == ["base", "image alone", "columns alone", "lr=0.1"]
