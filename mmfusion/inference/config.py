"""Options of ``mmfusion predict``."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig


@dataclass
class PredictConfig:
    """Options of a prediction.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several predict their mean.
        data: folder of images, folder of a data set, or a table (CSV, Parquet). Labels and splits are not needed.
        output: CSV file to write.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        calibrated: apply the temperature that was fitted at the end of training, where there is one.
        dataset: how to read the data; what the model was trained with, unless said otherwise. A folder that holds no
            table is read as images alone.
    """

    model: list[str]
    data: str
    output: str = "predictions.csv"
    batch_size: int = 64
    tta: bool = False
    calibrated: bool = True
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
