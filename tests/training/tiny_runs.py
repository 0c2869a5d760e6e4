"""Runs that take a second or two."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

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


def run_config(data: Path, output: Path, model: str | dict[str, Any] = "test_mibf", **train: Any) -> RunConfig:
    """A small run with keywords of ``TrainConfig``. The model is a name, ``plain`` (above), or a complete config."""
    if isinstance(model, str):
        model = PLAIN if model == "plain" else {"name": model}
    return RunConfig(
        data=str(data),
        output=str(output),
        model=ModelConfig(**model),
        processor=ProcessorConfig(image_size=32),
        train=TrainConfig(**{"epochs": 2, "batch_size": 4, "lr": 3e-3, "encoder_lr_scale": 1.0, **train}),
    )


@contextmanager
def without_plots() -> Iterator[None]:
    """Write no image files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("matplotlib.figure.Figure.savefig", lambda *_, **__: None)
        yield
