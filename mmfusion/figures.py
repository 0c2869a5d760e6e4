"""Metric values with their intervals."""

from __future__ import annotations

from dataclasses import dataclass, field

from mmfusion.records import FLAT, OPTIONAL


@dataclass(frozen=True)
class Interval:
    """A metric value and the ends of its bootstrap interval, each None if undefined."""

    value: float | None
    low: float | None
    high: float | None

    def text(self, digits: int = 3) -> str:
        """Formatted value: ``0.804 [0.786, 0.822]``, or ``undefined``."""
        if self.value is None or self.low is None or self.high is None:
            return "undefined"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"

    def __str__(self) -> str:
        return self.text()


@dataclass(frozen=True)
class Intervals:
    """All metrics, and if requested ``recall`` (sensitivity) and ``auroc`` per class, with their intervals."""

    figures: dict[str, Interval] = field(default_factory=dict, metadata=FLAT)
    per_class: dict[str, dict[str, Interval]] | None = field(default=None, metadata=OPTIONAL)

    def __getitem__(self, metric: str) -> Interval:
        return self.figures[metric]


@dataclass(frozen=True)
class Bootstrap:
    """Parameters of the bootstrap: ``replicates`` resamples of ``groups`` groups from ``seed``."""

    replicates: int
    level: float
    seed: int
    groups: int
