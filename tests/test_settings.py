"""Dotted settings of a configuration."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest

from mmfusion.cli.parsing import parse
from mmfusion.data.config import DatasetConfig
from mmfusion.settings import command_line, leaves, with_settings
from mmfusion.training import ModelConfig, RunConfig, TrainConfig


def test_settings_are_laid_over_and_their_types_checked() -> None:
    config = RunConfig(data="d", model=ModelConfig(head_args={"dropout": 0.1}))
    changed = with_settings(
        config,
        {
            "train.lr": "1e-4",
            "seed": 3,
            "model.head_args.hidden_features": 8,
            "model.fusion_args.num_layers": 2,
            "dataset.folds": {"test": [1]},
            "train.loss_args.gamma": 2.0,
        },
    )
    assert changed.train.lr == 1e-4 and changed.seed == 3
    assert changed.model.head_args == {"dropout": 0.1, "hidden_features": 8}
    assert changed.model.fusion_args == {"num_layers": 2}
    assert isinstance(changed.dataset, DatasetConfig) and changed.dataset.folds == {"test": [1]}
    assert changed.train.loss_args == {"gamma": 2.0}
    assert config == RunConfig(data="d", model=ModelConfig(head_args={"dropout": 0.1}))
    assert with_settings(config, {}) == config


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train.lrr": 1}, "Unknown setting 'train.lrr'; did you mean 'lr' or 'lora' or 'alarm'?"),
        ({"trian.lr": 1}, "Unknown setting 'trian.lr'; did you mean 'train'"),
        ({"train.lr.x": 1}, "Unknown setting 'train.lr.x'; train.lr has no parts."),
        ({"model.fusion.x": 1}, "Unknown setting 'model.fusion.x'; model.fusion has no parts."),
        ({"train.epochs": "many"}, "The settings {'train.epochs': 'many'} are invalid:"),
    ],
)
def test_what_is_no_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        with_settings(RunConfig(data="d"), settings)


def test_command_line_is_read_back_as_the_same_configuration() -> None:
    config = RunConfig(
        data="my data",
        seed=3,
        dataset=DatasetConfig(
            study_column="patient",
            view_column="view",
            views=["a b", "null"],
            missing_values=[],
            folds={"test": [1]},
            split_column=None,
        ),
        model=ModelConfig(head_args={"dropout": 0.1}),
        train=TrainConfig(resume=True, lr=1e-5, channels_last=False),
    )
    words = shlex.split(command_line("train", config))
    assert words[:2] == ["mmfusion", "train"] and "--train.epochs" not in words
    assert parse("train", words[2:]) == config


def test_leaves_tell_types_and_what_must_be_given() -> None:
    found = {name: (hint, required) for name, hint, required in leaves(RunConfig)}
    assert found["data"] == (str, True) and found["train.lr"] == (float, False)
    assert found["dataset.views"] == (list[str], False) and "dataset" not in found
    assert [name for name, (_, required) in found.items() if required] == ["data"]
