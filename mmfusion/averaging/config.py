"""Options of ``mmfusion soup``."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting


@dataclass
class SoupConfig:
    """Options of soup.

    Attributes:
        models: Runs of one architecture, two at least: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: Folder to make.
        data: Root folder of the data set that they were trained on. With it the soup is measured and calibrated on the
            validation rows; null averages without measuring and calibrating.
        method: ``uniform`` takes all; ``greedy`` begins with the best on the validation rows and adds the others in
            their order, each if the soup is then no worse. Null is greedy with data and uniform without.
        metric: Validation metric that ``greedy`` looks at, one of :data:`~mmfusion.evaluation.metrics.METRICS`.
        batch_size: Rows per step.
        dataset: How to read the data; what the first model was trained with, unless said otherwise.
    """

    models: list[str]
    output: str
    data: str | None = None
    method: str | None = None
    metric: str = "balanced_accuracy"
    batch_size: int = 64
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data) if self.data is not None else None
