"""Inference: a trained model, rows in and probabilities out: streaming, test-time augmentation, ensembles, ONNX.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "Predictions": "cases",
    "predict_cases": "cases",
    "Ensemble": "ensemble",
    "OnnxModel": "onnx_model",
    "Predictor": "predictor",
    "AllRows": "stream",
    "PredictionWriter": "stream",
    "predict_rows": "stream",
    "tta_probabilities": "tta",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.inference.cases import Predictions as Predictions
    from mmfusion.inference.cases import predict_cases as predict_cases
    from mmfusion.inference.ensemble import Ensemble as Ensemble
    from mmfusion.inference.onnx_model import OnnxModel as OnnxModel
    from mmfusion.inference.predictor import Predictor as Predictor
    from mmfusion.inference.stream import AllRows as AllRows
    from mmfusion.inference.stream import PredictionWriter as PredictionWriter
    from mmfusion.inference.stream import predict_rows as predict_rows
    from mmfusion.inference.tta import tta_probabilities as tta_probabilities

__getattr__, __dir__ = exports(__name__, _MODULES)
