"""Evaluation: figures, plots, streaming inference and test-time augmentation.

Names are resolved on first use, so that importing this package loads no heavy library. ``evaluate`` itself is in
:mod:`mmfusion.evaluation.evaluate`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "classification_metrics": "metrics",
    "expected_calibration_error": "metrics",
    "headline": "metrics",
    "bootstrap_counts": "intervals",
    "interval": "intervals",
    "metric_intervals": "intervals",
    "weighted_headline": "intervals",
    "AllRows": "predictions",
    "PredictionWriter": "predictions",
    "predict_rows": "predictions",
    "plot_confusion_matrix": "plots",
    "plot_roc": "plots",
    "plot_training_curves": "plots",
    "tta_probabilities": "tta",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.evaluation.intervals import bootstrap_counts as bootstrap_counts
    from mmfusion.evaluation.intervals import interval as interval
    from mmfusion.evaluation.intervals import metric_intervals as metric_intervals
    from mmfusion.evaluation.intervals import weighted_headline as weighted_headline
    from mmfusion.evaluation.metrics import classification_metrics as classification_metrics
    from mmfusion.evaluation.metrics import expected_calibration_error as expected_calibration_error
    from mmfusion.evaluation.metrics import headline as headline
    from mmfusion.evaluation.plots import plot_confusion_matrix as plot_confusion_matrix
    from mmfusion.evaluation.plots import plot_roc as plot_roc
    from mmfusion.evaluation.plots import plot_training_curves as plot_training_curves
    from mmfusion.evaluation.predictions import AllRows as AllRows
    from mmfusion.evaluation.predictions import PredictionWriter as PredictionWriter
    from mmfusion.evaluation.predictions import predict_rows as predict_rows
    from mmfusion.evaluation.tta import tta_probabilities as tta_probabilities

__getattr__, __dir__ = exports(__name__, _MODULES)
