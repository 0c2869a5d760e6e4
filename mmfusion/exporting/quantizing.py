"""An ONNX program with weights of 8 bits, and what that costs in accuracy."""

import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.data import CaseTable
from mmfusion.files import written_whole
from mmfusion.inference.onnx_model import OnnxModel
from mmfusion.inference.predictor import Predictor

#: operators whose weights are stored in 8 bits. Convolutions are none of them: quantized as it goes, ONNX Runtime
#: computes those many times slower, and one class in five comes out otherwise (MobileNetV2, HAM10000).
OPERATORS = ["MatMul", "Gemm"]

#: what weights may become.
TYPES = ("int8",)


@dataclass(frozen=True)
class Loss:
    """A model before and after its weights were quantized, on the same labeled rows.

    Attributes:
        type: Of the weights.
        split: Which rows of the data.
        rows: Their number.
        accuracy: Share of rows with the right class, before and after.
        balanced_accuracy: Mean over the classes of that share, before and after.
        same_class: Share of rows with the same class.
        difference: Largest difference of a probability.
        megabytes: Size of the program, before and after.
    """

    type: str
    split: str
    rows: int
    accuracy: tuple[float, float]
    balanced_accuracy: tuple[float, float]
    same_class: float
    difference: float
    megabytes: tuple[float, float]

    def entry(self) -> dict[str, Any]:
        """What ``config.json`` says of it."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}

    def __str__(self) -> str:
        (before, after), (all_before, all_after) = self.balanced_accuracy, self.accuracy
        rows = f"{self.rows:,} rows ({self.split})"
        return (
            f"{self.type} on {rows}: balanced accuracy {before:.4f} -> {after:.4f}, accuracy {all_before:.4f} -> "
            f"{all_after:.4f}; the same class in {self.same_class:.1%} of rows, probabilities differ by up to "
            f"{self.difference:.2g}; {self.megabytes[0]:.1f} -> {self.megabytes[1]:.1f} MB"
        )


def quantize_program(path: Path) -> tuple[float, float]:
    """Store a program's weights in 8 bits; ONNX Runtime quantizes what they are multiplied with as it goes.

    Args:
        path: ONNX file, which is replaced.

    Returns:
        Its size before and after, in megabytes.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = path.stat().st_size
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a step that changes nothing here
    try:
        with written_whole(path) as smaller:
            quantize_dynamic(path, smaller, weight_type=QuantType.QInt8, op_types_to_quantize=OPERATORS)
    finally:
        root.setLevel(level)
    return before / 1e6, path.stat().st_size / 1e6


def loss_of(predictor: Predictor, folder: Path, cases: CaseTable, **about: Any) -> Loss:
    """Measure the program of a folder beside the model that it was made of.

    Args:
        predictor: The model.
        folder: Its export, quantized.
        cases: Labeled rows.
        about: ``type``, ``split`` and ``megabytes`` of the result.
    """
    quantized = replace(predictor, model=OnnxModel(folder, "cpu"), channels_last=False, dtype=None)
    found = [each.predict_cases(cases, description="Quantized against") for each in (predictor, quantized)]
    labels, p, q = found[0].labels, *(each.probabilities for each in found)
    if not len(labels):
        raise ValueError(f"{cases.source} has no labelled rows to measure the loss of {about['type']} on.")
    shares = [_shares(labels, each) for each in (p, q)]
    accuracy, balanced = ((a, b) for a, b in zip(*shares, strict=True))
    same = float((p.argmax(axis=1) == q.argmax(axis=1)).mean())
    return Loss(
        rows=len(labels),
        accuracy=accuracy,
        balanced_accuracy=balanced,
        same_class=same,
        difference=float(np.abs(p - q).max()),
        **about,
    )


def _shares(labels: NDArray[np.int64], probabilities: NDArray[np.float32]) -> tuple[float, float]:
    """Accuracy and balanced accuracy."""
    right = probabilities.argmax(axis=1) == labels
    return float(right.mean()), float(np.mean([right[labels == label].mean() for label in np.unique(labels)]))
