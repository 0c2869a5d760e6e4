"""Studies: runs that differ in one thing, and what the difference is worth. Light to import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "StudyConfig": "config",
    "SweepConfig": "config",
    "compare": "comparison",
    "sweep": "search",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.studies.comparison import compare as compare
    from mmfusion.studies.config import StudyConfig as StudyConfig
    from mmfusion.studies.config import SweepConfig as SweepConfig
    from mmfusion.studies.search import sweep as sweep

__getattr__, __dir__ = exports(__name__, _MODULES)
