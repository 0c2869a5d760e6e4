"""Options of ``mmfusion export``."""

from dataclasses import dataclass


@dataclass
class ExportConfig:
    """Options of export.

    Attributes:
        model: Trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: Folder to make, for ``Predictor.from_pretrained``: the program, ``config.json`` with processor, labels
            and calibration, the tokenizer's files, metrics and model card. Or a file, ``.onnx`` or ``.pt2``, for the
            program alone.
        format: ``onnx``, or ``torch-export`` for ``torch.export.load``.
        tolerance: Largest difference from the model that is accepted, of a probability, or of a logit over the batch's
            largest (at least 1).
        force: Export although the model's texts hold what may be of a person or a machine (names, dates, ids, paths,
            keys); the card says so.
    """

    model: str
    output: str
    format: str = "onnx"
    tolerance: float = 1e-4
    force: bool = False
