"""Options of ``mmfusion export``."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig


@dataclass
class ExportConfig:
    """Options of ``mmfusion export``.

    Attributes:
        model: Trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: Folder to write, for ``Predictor.from_pretrained``: the program, ``config.json`` with processor, labels
            and calibration, tokenizer files, metrics and model card. Or a file, ``.onnx`` or ``.pt2``, for the program
            only.
        format: ``onnx``, or ``torch-export`` for ``torch.export.load``.
        tolerance: Maximum accepted difference from the model, of a probability, or of a logit relative to the batch's
            largest (at least 1).
        force: Export although the model's texts contain possible names, dates, ids, paths or keys; the card records it.
        quantize: ``int8`` stores the weights of an ONNX program in 8 bits, and records the cost on the rows of ``data``
            in the folder. None keeps the weights in 32 bits.
        data: Labeled rows to measure the cost on: root folder of a data set, or its table.
        split: Split of these rows: ``train``, ``val``, ``test`` or ``all``; None uses the test rows if there are any.
        dataset: How to read them; the defaults are the model's training settings.
    """

    model: str
    output: str
    format: str = "onnx"
    tolerance: float = 1e-4
    force: bool = False
    quantize: str | None = None
    data: str | None = None
    split: str | None = None
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
