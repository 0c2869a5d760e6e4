"""Training: one function, ``train(RunConfig(...))``, on the transformers Trainer. Light to import."""

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
