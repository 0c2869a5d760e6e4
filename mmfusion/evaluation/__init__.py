"""Evaluation: metrics with intervals, calibration, conformal sets, subgroups, plots and the HTML report."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.evaluation.benefit import (
        benefit_difference as benefit_difference,
        benefit_figures as benefit_figures,
        calibration_line as calibration_line,
        net_benefit as net_benefit,
    )
    from mmfusion.evaluation.calibration import calibrate as calibrate, reliability as reliability
    from mmfusion.evaluation.config import EvaluateConfig as EvaluateConfig
    from mmfusion.evaluation.conformal import (
        Conformal as Conformal,
        conformal_figures as conformal_figures,
        conformal_quantile as conformal_quantile,
        fit_conformal as fit_conformal,
    )
    from mmfusion.evaluation.familiarity import fit_familiarity as fit_familiarity
    from mmfusion.evaluation.intervals import (
        bootstrap_counts as bootstrap_counts,
        interval as interval,
        metric_intervals as metric_intervals,
        weighted_headline as weighted_headline,
    )
    from mmfusion.evaluation.metrics import (
        METRICS as METRICS,
        Metric as Metric,
        classification_metrics as classification_metrics,
        expected_calibration_error as expected_calibration_error,
        headline as headline,
    )
    from mmfusion.evaluation.missing import missing_modality as missing_modality
    from mmfusion.evaluation.operating import choose_points as choose_points, decision_figures as decision_figures
    from mmfusion.evaluation.plots import (
        plot_confusion_matrix as plot_confusion_matrix,
        plot_reliability as plot_reliability,
        plot_risk_coverage as plot_risk_coverage,
        plot_roc as plot_roc,
        plot_training_curves as plot_training_curves,
    )
    from mmfusion.evaluation.report import write_report as write_report
    from mmfusion.evaluation.run import evaluate as evaluate
    from mmfusion.evaluation.selective import risk_coverage as risk_coverage, selective_figures as selective_figures
    from mmfusion.evaluation.sensitivity import modality_sensitivity as modality_sensitivity
    from mmfusion.evaluation.subgroups import subgroup_figures as subgroup_figures
    from mmfusion.evaluation.temperature import fit_temperature as fit_temperature, temper as temper
    from mmfusion.evaluation.thresholds import (
        sensitivity_threshold as sensitivity_threshold,
        threshold_figures as threshold_figures,
    )
    from mmfusion.evaluation.weighted import Weighted as Weighted
    from mmfusion.figures import Interval as Interval
    from mmfusion.results import Evaluation as Evaluation

__getattr__, __dir__ = attach(__name__)
