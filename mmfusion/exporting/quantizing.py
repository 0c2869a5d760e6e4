"""Quantization of ONNX programs to 8-bit weights, and its cost in accuracy."""

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

#: operators whose weights are stored in 8 bits. Convolutions are excluded: with dynamic quantization, ONNX Runtime
#: is many times slower on them, and one prediction in five changes (MobileNetV2, HAM10000).
OPERATORS = ["MatMul", "Gemm"]

#: supported types of quantized weights.
TYPES = ("int8",)


@dataclass(frozen=True)
class Loss:
    """Metrics of a model before and after quantization, on the same labeled rows.

    Attributes:
        type: Type of the quantized weights.
        split: Split of the rows.
        rows: Number of rows.
        accuracy: Accuracy before and after.
        balanced_accuracy: Balanced accuracy before and after.
        same_class: Share of rows whose predicted class is unchanged.
        difference: Largest difference of a probability.
        megabytes: Size of the program before and after.
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
        """Entry in ``config.json``."""
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
    """Store a program's weights in 8 bits; ONNX Runtime quantizes the activations at run time.

    Args:
        path: ONNX file, which is replaced.

    Returns:
        Size of the file before and after, in megabytes.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    before = path.stat().st_size
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it recommends a preprocessing step that has no effect here
    try:
        with written_whole(path) as smaller:
            quantize_dynamic(path, smaller, weight_type=QuantType.QInt8, op_types_to_quantize=OPERATORS)
    finally:
        root.setLevel(level)
    return before / 1e6, path.stat().st_size / 1e6


def loss_of(predictor: Predictor, folder: Path, cases: CaseTable, **about: Any) -> Loss:
    """Compare the quantized program in a folder with its original model.

    Args:
        predictor: The model.
        folder: Folder of its quantized export.
        cases: Labeled rows.
        about: ``type``, ``split`` and ``megabytes`` of the result.
    """
    quantized = replace(predictor, model=OnnxModel(folder, "cpu"), channels_last=False, dtype=None)
    found = [each.predict_cases(cases, description="Quantized against") for each in (predictor, quantized)]
    labels, p, q = found[0].labels, *(each.probabilities for each in found)
    if not len(labels):
        raise ValueError(f"{cases.source} has no labeled rows to measure the cost of {about['type']} on.")
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
