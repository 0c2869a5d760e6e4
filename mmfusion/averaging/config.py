"""Options of ``mmfusion soup``."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig


@dataclass
class SoupConfig:
    """Options of soup.

    Attributes:
        models: runs of one architecture: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make.
        data: root folder of the data set that they were trained on; null averages without measuring.
        method: ``greedy`` takes the models that make the mean no worse on the validation rows, ``uniform`` all; null is
            greedy with data and uniform without.
        metric: validation figure that ``greedy`` looks at.
        batch_size: rows per step.
        dataset: how to read the data; what the first model was trained with, unless said otherwise.
    """

    models: list[str]
    output: str
    data: str | None = None
    method: str | None = None
    metric: str = "balanced_accuracy"
    batch_size: int = 64
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
