"""Experiments: runs that differ in one setting, and statistics of their differences. Imports no heavy library."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.experiments.comparison import Comparison as Comparison, compare as compare
    from mmfusion.experiments.config import ExperimentConfig as ExperimentConfig, SweepConfig as SweepConfig
    from mmfusion.experiments.search import SweepResult as SweepResult, sweep as sweep

__getattr__, __dir__ = attach(__name__)
