"""Options of ``mmfusion predict`` and ``mmfusion embed``. Imports no heavy library."""

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
        tta: Average over test-time augmentations; null uses the model's setting.
        compile: Compile the model with torch.compile at its first batches; worthwhile for many rows on a GPU.
        calibrated: Apply the fitted temperature and, if the model has one, the restored part of the prior.
        escape_formulas: Prefix ids, classes and errors with an apostrophe if a spreadsheet would evaluate them as a
            formula.
        calibration: Update for another site from ``mmfusion validate``: its file, or the name of one stored with the
            model.
        by: ``group`` gives one prediction for all rows of a group (``dataset.group_column``: patient, lesion).
        pooling: Pooling with ``by``: ``mean`` of the probabilities, or ``max`` for each class; None uses the model's
            setting, else the mean.
        refuse_unfamiliar: Rows with a lower familiarity get an error instead of a prediction (0.01 affects about one in
            a hundred usual cases); None disables it.
        engine: ``torch``, or ``onnx``, which exports the model once and runs it with ONNX Runtime
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
    """Options of ``mmfusion embed``.

    Attributes:
        data: Folder of images, folder of a data set, or a table. Labels and splits are not needed.
        output: Folder to write: a file of vectors per case, and the table ``bags.csv``.
        model: Trained model whose image encoder is used: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        encoder: Instead of a trained model, an encoder with published weights: timm name, ``hf-hub:ORG/NAME`` (timm or
            transformers) or a folder.
        format: File format: ``h5`` (``mmfusion[bags]``), ``npz`` or ``safetensors``.
        dtype: Data type, ``float16`` or ``float32``.
        image_size: Image size in pixels, with ``encoder``; None uses the encoder's default.
        batch_size: Cases per step.
        workers: Loader processes.
        dataset: How to read the data; the defaults are the model's training settings.
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
            raise ValueError("embed needs either a trained --model or an --encoder with published weights.")
        if self.format not in ("h5", "npz", "safetensors"):
            raise ValueError(f"format must be h5, npz or safetensors, got {self.format!r}.")
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype must be float16 or float32, got {self.dtype!r}.")
