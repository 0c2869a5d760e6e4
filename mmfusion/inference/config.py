"""Options of predict and embed."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig
from mmfusion.data.memory import as_setting
from mmfusion.decisions import check_by


@dataclass
class PredictConfig:
    """Options of a prediction.

    Attributes:
        model: Trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``; several predict their mean.
        data: Folder of images, folder of a data set, or a table (CSV, Parquet). Labels and splits are not needed.
        output: CSV file to write.
        batch_size: Rows per step.
        tta: Average over test-time augmentations; null does as the model was saved.
        compile: Compile the model with torch.compile at its first batches: for many rows on a GPU.
        calibrated: Apply the temperature that was fitted at the end of training, and the part of the prior that was
            put back, where there is one.
        escape_formulas: Put an apostrophe before ids, classes and errors that a spreadsheet would evaluate as a
            formula.
        calibration: Update for another site, as ``mmfusion validate`` makes it: its file, or the name of one that is
            stored with the model.
        by: ``group`` gives one prediction for all rows of a group (``dataset.group_column``: patient, lesion).
        pooling: Pooling with ``by``: ``mean`` of the probabilities, or ``max`` for each class; None uses the model's
            setting, else the mean.
        refuse_unfamiliar: Rows with a lower familiarity (0.01: less than one usual case in a hundred) get an error
            instead of a prediction; None refuses none.
        engine: ``torch``, or ``onnx``, which exports a saved model once and runs it with ONNX Runtime
            (``mmfusion[onnx]``); None uses torch, and onnx for an exported model.
        dataset: How to read the data; the defaults are the model's training settings. A folder without a table is read
            as images.
    """

    model: list[str]
    data: str
    output: str = "predictions.csv"
    batch_size: int = 64
    tta: bool | None = None
    compile: bool = False
    calibrated: bool = True
    escape_formulas: bool = False
    calibration: str | None = None
    by: str | None = None
    pooling: str | None = None
    refuse_unfamiliar: float | None = None
    engine: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
        check_by(self.by, self.pooling)


@dataclass
class EmbedConfig:
    """Options of embed.

    Attributes:
        data: Folder of images, folder of a data set, or a table. Labels and splits are not needed.
        output: Folder to write: a file of vectors per case, and the table ``bags.csv``.
        model: Trained model whose image encoder is used: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        encoder: Instead of a trained model, an encoder with published weights: timm name, ``hf-hub:ORG/NAME`` (timm or
            transformers) or a folder.
        format: File format: ``h5`` (``mmfusion[bags]``), ``npz`` or ``safetensors``.
        dtype: Data type, ``float16`` or ``float32``.
        image_size: Side of the images in pixels, with ``encoder``; None takes the encoder's own.
        batch_size: Cases per step.
        workers: Loader processes.
        dataset: How to read the data; what the model was trained with, unless said otherwise.
    """

    data: str
    output: str
    model: str | None = None
    encoder: str | None = None
    format: str = "npz"
    dtype: str = "float16"
    image_size: int | None = None
    batch_size: int = 32
    workers: int = 0
    dataset: DatasetConfig = field(default_factory=DatasetConfig)

    def __post_init__(self) -> None:
        self.data = as_setting(self.data)
        if (self.model is None) == (self.encoder is None):
            raise ValueError("embed takes a trained --model, or an --encoder with its published weights: one of them.")
        if self.format not in ("h5", "npz", "safetensors"):
            raise ValueError(f"format is h5, npz or safetensors, not {self.format!r}.")
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype is float16 or float32, not {self.dtype!r}.")
