"""Inference: a trained model, rows in and probabilities out: streaming, test-time augmentation, ensembles, ONNX."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

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

__getattr__, __dir__ = attach(__name__)
