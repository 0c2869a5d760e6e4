"""What an evaluation is told. Light to import."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting


@dataclass
class EvaluateConfig:
    """Options of an evaluation.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several predict their mean.
        data: root folder of the data set.
        split: rows to evaluate on: ``train``, ``val``, ``test`` or ``all``; None takes ``test``, and ``all`` of data
            without a split that are not those of the model's training.
        output: folder for the results; None takes ``evaluation/SPLIT`` in the run folder, or below ``runs``.
        batch_size: rows per step.
        tta: average over test-time augmentations; null does as the model was saved.
        calibrated: apply the temperature that was fitted at the end of training, and the part of the prior that was
            put back, where there is one.
        subgroups: columns whose values part the rows; numbers go into thirds, ``age:10`` into bands of ten.
        validation: fit conformal sets and decision thresholds on the rows of ``val``, and try them on the others.
        coverage: wanted share of conformal sets with the true class.
        sensitivity: wanted of each class's decision threshold.
        missing_modality: also measure with every set of the modalities (image, text, columns), and with the text
            or the columns of another row.
        report: write ``report.html``, one page with everything, validation rows and missing modalities included.
        dataset: how to read the data; what the model was trained with, unless said otherwise.
    """

    model: list[str]
    data: str
    split: str | None = None
    output: str | None = None
    batch_size: int = 64
    tta: bool | None = None
    calibrated: bool = True
    subgroups: list[str] = field(default_factory=list)
    validation: bool = False
    coverage: float = 0.9
    sensitivity: float = 0.9
    missing_modality: bool = False
    report: bool = False
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
