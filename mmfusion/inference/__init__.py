"""Inference: predictors, streaming, test-time augmentation, ensembles, ONNX Runtime."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.inference.cases import Predictions as Predictions
    from mmfusion.inference.onnx_model import OnnxModel as OnnxModel
    from mmfusion.inference.predictions_csv import prediction_writer as prediction_writer
    from mmfusion.inference.predictor import Ensemble as Ensemble, Predictor as Predictor
    from mmfusion.inference.rows import AllRows as AllRows
    from mmfusion.inference.run import predict_path as predict_path
    from mmfusion.inference.stream import Prediction as Prediction, predict_rows as predict_rows
    from mmfusion.inference.temperature import class_probabilities as class_probabilities

__getattr__, __dir__ = attach(__name__)
