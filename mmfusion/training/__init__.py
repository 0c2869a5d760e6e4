"""Training with the transformers Trainer: ``train(RunConfig(...))``. Imports no heavy library."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.training.config import (
        CardConfig as CardConfig,
        ModelConfig as ModelConfig,
        PrivacyConfig as PrivacyConfig,
        ProcessorConfig as ProcessorConfig,
        RunConfig as RunConfig,
        TrainConfig as TrainConfig,
    )
    from mmfusion.training.finish import TrainResult as TrainResult
    from mmfusion.training.run import train as train

__getattr__, __dir__ = attach(__name__)
