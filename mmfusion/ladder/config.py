"""Options of ``mmfusion auto``. Imports no heavy library."""

import re
import time
from dataclasses import dataclass, field, fields
from functools import partial

from mmfusion.artifacts.folder import is_saved
from mmfusion.data.config import DatasetConfig
from mmfusion.training.config import ModelConfig, ProcessorConfig, RunConfig, TrainConfig

_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_TIME = re.compile("".join(rf"(?:(?P<{unit}>\d+(?:\.\d+)?){unit})?" for unit in _UNITS))


_train = partial(
    TrainConfig, epochs=40, encoder_lr_scale=0.6, weight_decay=0.02, ema=0.998, freeze_stages=3, metric="macro_auroc"
)


@dataclass
class AutoConfig(RunConfig):
    """Options of ``mmfusion auto``. The defaults of ``model``, ``processor`` and ``train`` suit a few CPU cores.

    Attributes:
        data: Root folder of the data set, or its table. It needs validation rows, or no split at all.
        output: Folder of the leaderboard and the trained models; a second call continues there.
        time_limit: Time for one call: ``45s``, ``20m``, ``1h``, ``1h30m``, or a number of seconds. It starts when the
            options are read and includes importing the libraries. Imports and the audit, which opens every image, are
            never cut short.
        seed: Seed of a drawn split, weights, order and augmentation.
        dataset: How to read the data. Suitable columns are used unless ``table_columns`` is ``none``.
        model: Architecture of all networks; towers without data are dropped.
        processor: How rows become tensors.
        train: How to train networks: as many epochs as the time allows, at most ``epochs``. ``metric`` sorts the
            leaderboard and selects epochs and winner. ``freeze_stages`` applies to pretrained weights only.
        privacy: Limits on what a saved model stores about patients.
        card: Facts for the model cards.
        plugins: Modules that register additional parts.

    Raises:
        ValueError: The time limit is invalid, or the model is trained weights rather than an architecture.
    """

    output: str = "runs/auto"
    dataset: DatasetConfig = field(default_factory=partial(DatasetConfig, table_columns="auto"))
    model: ModelConfig = field(default_factory=partial(ModelConfig, name="mibf_v2_lite0"))
    processor: ProcessorConfig = field(default_factory=partial(ProcessorConfig, image_size=112))
    train: TrainConfig = field(default_factory=_train)
    time_limit: float | str = "1h"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.began = time.monotonic()  # not a setting, so not a field
        if self.seconds <= 0:
            raise ValueError(f"time_limit must be above 0; got {self.time_limit!r}.")
        if is_saved(self.model.name):
            raise ValueError(f"auto needs an architecture, not the trained {self.model.name!r}; use train for those.")

    @property
    def seconds(self) -> float:
        """The time limit."""
        text = str(self.time_limit).strip().lower()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        found = _TIME.fullmatch(text)
        if found is None or not text:
            raise ValueError(f"time_limit must be a time such as 45s, 20m or 1h30m; got {self.time_limit!r}.")
        return sum(float(count) * _UNITS[unit] for unit, count in found.groupdict().items() if count)

    def run(self) -> RunConfig:
        """The training run from which all networks are derived."""
        return RunConfig(**{f.name: getattr(self, f.name) for f in fields(RunConfig)})
