"""Evaluation: metrics with intervals, calibration, conformal sets, subgroups, plots and the page about it all."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.evaluation.calibration import calibrate as calibrate
    from mmfusion.evaluation.calibration import reliability as reliability
    from mmfusion.evaluation.config import EvaluateConfig as EvaluateConfig
    from mmfusion.evaluation.conformal import Conformal as Conformal
    from mmfusion.evaluation.conformal import conformal_figures as conformal_figures
    from mmfusion.evaluation.conformal import conformal_quantile as conformal_quantile
    from mmfusion.evaluation.conformal import fit_conformal as fit_conformal
    from mmfusion.evaluation.intervals import bootstrap_counts as bootstrap_counts
    from mmfusion.evaluation.intervals import interval as interval
    from mmfusion.evaluation.intervals import metric_intervals as metric_intervals
    from mmfusion.evaluation.intervals import weighted_headline as weighted_headline
    from mmfusion.evaluation.metrics import METRICS as METRICS
    from mmfusion.evaluation.metrics import Metric as Metric
    from mmfusion.evaluation.metrics import classification_metrics as classification_metrics
    from mmfusion.evaluation.metrics import expected_calibration_error as expected_calibration_error
    from mmfusion.evaluation.metrics import headline as headline
    from mmfusion.evaluation.missing import missing_modality as missing_modality
    from mmfusion.evaluation.plots import plot_confusion_matrix as plot_confusion_matrix
    from mmfusion.evaluation.plots import plot_reliability as plot_reliability
    from mmfusion.evaluation.plots import plot_risk_coverage as plot_risk_coverage
    from mmfusion.evaluation.plots import plot_roc as plot_roc
    from mmfusion.evaluation.plots import plot_training_curves as plot_training_curves
    from mmfusion.evaluation.report import write_report as write_report
    from mmfusion.evaluation.run import evaluate as evaluate
    from mmfusion.evaluation.selective import risk_coverage as risk_coverage
    from mmfusion.evaluation.selective import selective_figures as selective_figures
    from mmfusion.evaluation.subgroups import subgroup_figures as subgroup_figures
    from mmfusion.evaluation.temperature import fit_temperature as fit_temperature
    from mmfusion.evaluation.temperature import temper as temper
    from mmfusion.evaluation.thresholds import sensitivity_threshold as sensitivity_threshold
    from mmfusion.evaluation.thresholds import threshold_figures as threshold_figures
    from mmfusion.evaluation.weighted import Weighted as Weighted
    from mmfusion.results import Evaluation as Evaluation
    from mmfusion.results import Interval as Interval

__getattr__, __dir__ = attach(__name__)
