"""Experiments: runs that differ in one thing, and what the difference is worth. Light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "Comparison": "comparison",
    "ExperimentConfig": "config",
    "SweepConfig": "config",
    "compare": "comparison",
    "SweepResult": "search",
    "sweep": "search",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.experiments.comparison import Comparison as Comparison
    from mmfusion.experiments.comparison import compare as compare
    from mmfusion.experiments.config import ExperimentConfig as ExperimentConfig
    from mmfusion.experiments.config import SweepConfig as SweepConfig
    from mmfusion.experiments.search import SweepResult as SweepResult
    from mmfusion.experiments.search import sweep as sweep

__getattr__, __dir__ = exports(__name__, _MODULES)
