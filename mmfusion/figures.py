"""A metric value with its interval."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A metric value with the ends of its bootstrap interval, each None if undefined."""

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
