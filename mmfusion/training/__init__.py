"""Training: one function, ``train(RunConfig(...))``, on the transformers Trainer. Light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmfusion.training.config import CardConfig, ModelConfig, ProcessorConfig, RunConfig, TrainConfig

if TYPE_CHECKING:
    from mmfusion.training.run import TrainResult, train

__all__ = ["CardConfig", "ModelConfig", "ProcessorConfig", "RunConfig", "TrainConfig", "TrainResult", "train"]


def __getattr__(name: str) -> Any:
    """Import the training run itself, and with it torch, on its first use (PEP 562)."""
    if name in ("TrainResult", "train"):
        from mmfusion.training import run

        return getattr(run, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
