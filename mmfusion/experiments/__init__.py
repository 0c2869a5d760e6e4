"""Experiments: runs that differ in one thing, and what the difference is worth. Light to import."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.experiments.comparison import Comparison as Comparison
    from mmfusion.experiments.comparison import compare as compare
    from mmfusion.experiments.config import ExperimentConfig as ExperimentConfig
    from mmfusion.experiments.config import SweepConfig as SweepConfig
    from mmfusion.experiments.search import SweepResult as SweepResult
    from mmfusion.experiments.search import sweep as sweep

__getattr__, __dir__ = attach(__name__)
