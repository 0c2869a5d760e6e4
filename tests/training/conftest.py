from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig

#: a text encoder without dropout, and a picture encoder without batch statistics.
PLAIN = {
    "name": "test_concat",
    "image_encoder": "test_convnext",
    "text_args": {
        "config": {
            "model_type": "bert",
            "vocab_size": 256,
            "hidden_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
        }
    },
    "head_args": {"dropout": 0.0},
}


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def make_config(toy: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """A small run; keywords are those of ``TrainConfig``. The model is a name, ``plain`` (above), or told in full."""

    def make(name: str = "run", model: str | dict[str, Any] = "test_mibf", **train: Any) -> RunConfig:
        if isinstance(model, str):
            model = PLAIN if model == "plain" else {"name": model}
        return RunConfig(
            data=str(toy),
            output=str(tmp_path / name),
            model=ModelConfig(**model),
            processor=ProcessorConfig(image_size=32),
            train=TrainConfig(**{"epochs": 2, "batch_size": 4, "lr": 3e-3, "encoder_lr_scale": 1.0, **train}),
        )

    return make
