"""Options of ``mmfusion soup``."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting


@dataclass
class SoupConfig:
    """Options of ``mmfusion soup``.

    Attributes:
        models: At least two runs of one architecture: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: Folder to write.
        data: Root folder of their training data set, to evaluate and calibrate the result on the validation rows; null
            averages without both.
        method: ``uniform`` averages all; ``greedy`` starts with the best on the validation rows and adds each other one
            if the mean is then no worse. Null is greedy with data and uniform without.
        metric: Validation metric for ``greedy``; null uses the task's default.
        batch_size: Rows per step.
        dataset: How to read the data; the defaults are the first model's training settings.
    """

    models: list[str]
    output: str
    data: str | None = None
    method: str | None = None
    metric: str | None = None
    batch_size: int = 64
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data) if self.data is not None else None
