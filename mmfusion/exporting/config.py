"""Options of ``mmfusion export``."""

from dataclasses import dataclass, field

from mmfusion.data.config import DatasetConfig


@dataclass
class ExportConfig:
    """Options of export.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make, for ``Predictor.from_pretrained``: the program, ``config.json`` with processor, labels
            and calibration, the tokenizer's files, metrics and model card. Or a file, ``.onnx`` or ``.pt2``, for the
            program alone.
        format: ``onnx``, or ``torch-export`` for ``torch.export.load``.
        tolerance: largest difference from the model that is accepted, of a probability, or of a logit over the batch's
            largest (at least 1).
        force: export although the model's texts hold what may be of a person or a machine (names, dates, ids, paths,
            keys); the card says so.
        quantize: ``int8`` stores the weights of an ONNX program in 8 bits; the folder then tells what that costs on
            the rows of ``data``. None leaves them as they are.
        data: labelled rows to measure that on: root folder of a data set, or its table.
        split: which of them: ``train``, ``val``, ``test`` or ``all``; None takes the test rows where there are any.
        dataset: how to read them; what the model was trained with, unless said otherwise.
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
