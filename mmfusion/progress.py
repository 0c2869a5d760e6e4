"""Durations in words, and progress lines for logs, where a bar would be unreadable."""

import time
from collections.abc import Callable


def in_words(seconds: float) -> str:
    """Readable duration: ``45 s``, ``12 min``, ``1.5 h``."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def then_left(seconds: float, done: int, todo: int) -> str:
    """Suffix of a progress line: ``; about 12 min left``, or empty after the last item.

    Args:
        seconds: Duration of the finished items.
        done: Number of finished items; 0 if the rate is unknown.
        todo: Number of remaining items.
    """
    return f"; about {in_words(seconds / done * todo)} left" if done and todo else ""


class Heartbeat:
    """Occasional log line with rate and remaining time.

    Args:
        label: Beginning of the line.
        total: Total number of steps.
        done: Number of steps already done.
        every: Seconds between lines; shorter work logs none.
        tell: Called with each line.
    """

    def __init__(
        self, label: str, total: int, done: int = 0, every: float = 60.0, tell: Callable[[str], None] = print
    ) -> None:
        self.label, self.total, self.every, self.tell = label, total, every, tell
        self.first = self.done = done
        self.began = self.told = time.monotonic()

    def update(self) -> None:
        """Count a step."""
        self.done += 1
        now = time.monotonic()
        if now - self.told >= self.every:
            self.told = now
            rate = (self.done - self.first) / (now - self.began)
            left = in_words((self.total - self.done) / rate)
            self.tell(f"{self.label}: {self.done:,} of {self.total:,} steps, {rate:.3g} a second, {left} left")
