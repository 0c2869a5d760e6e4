"""Dotted settings over a configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mmfusion.data.config import DatasetConfig
from mmfusion.settings import with_settings
from mmfusion.training import ModelConfig, RunConfig


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
        ({"train.lrr": 1}, "'train.lrr' is no setting; did you mean 'lr'?"),
        ({"trian.lr": 1}, "'trian.lr' is no setting; did you mean 'train'?"),
        ({"train.lr.x": 1}, "'train.lr.x' is no setting; train.lr has no parts."),
        ({"model.fusion.x": 1}, "'model.fusion.x' is no setting; model.fusion has no parts."),
        ({"train.epochs": "many"}, "The settings {'train.epochs': 'many'} do not fit:"),
    ],
)
def test_what_is_no_setting_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        with_settings(RunConfig(data="d"), settings)
