"""Training: one function, ``train(RunConfig(...))``, on the transformers Trainer. Light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports
from mmfusion.training.config import CardConfig, ModelConfig, ProcessorConfig, RunConfig, TrainConfig

if TYPE_CHECKING:
    from mmfusion.training.finish import TrainResult as TrainResult
    from mmfusion.training.run import train as train

__all__ = ["CardConfig", "ModelConfig", "ProcessorConfig", "RunConfig", "TrainConfig", "TrainResult", "train"]

__getattr__, __dir__ = exports(__name__, {"TrainResult": "finish", "train": "run"})
