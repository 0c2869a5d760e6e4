"""Options of ``mmfusion export``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class ExportConfig:
    """Options of export.

    Attributes:
        model: trained model: ``local-dir:RUN``, ``hf-hub:ORG/NAME`` or ``arch.tag``.
        output: folder to make, for ``Predictor.from_pretrained``; or a file, ``.onnx`` or ``.pt2``, for the program
            alone.
        format: ``onnx``, or ``torch-export`` for ``torch.export.load``.
        tolerance: largest difference of a logit or a probability from the model that is accepted.
    """

    model: str
    output: str
    format: str = "onnx"
    tolerance: float = 1e-4
