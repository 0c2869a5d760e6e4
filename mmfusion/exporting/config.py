"""Options of ``mmfusion export``."""

from dataclasses import dataclass


@dataclass
class ExportConfig:
    """Options of export.

    Attributes:
        model: Trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: Folder to write, for ``Predictor.from_pretrained``: the program, ``config.json`` with processor, labels
            and calibration, tokenizer files, metrics and model card. Or a file, ``.onnx`` or ``.pt2``, for the program
            only.
        format: ``onnx``, or ``torch-export`` for ``torch.export.load``.
        tolerance: Maximum accepted difference from the model, of a probability, or of a logit relative to the batch's
            largest (at least 1).
        force: Export although the model's texts contain possible names, dates, ids, paths or keys; the card records it.
    """

    model: str
    output: str
    format: str = "onnx"
    tolerance: float = 1e-4
    force: bool = False
