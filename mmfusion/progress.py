"""How long work takes, in words; and lines about it for logs, where a bar would be unreadable."""

import time
from collections.abc import Callable


def in_words(seconds: float) -> str:
    """A time as a reader likes it: ``45 s``, ``12 min``, ``1.5 h``."""
    if seconds < 100:
        return f"{max(seconds, 0):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def then_left(seconds: float, done: int, todo: int) -> str:
    """What ends a line about one of several pieces of work: ``; about 12 min left``, or nothing after the last.

    Args:
        seconds: How long those took that are done.
        done: How many that were; 0 where no pace is known yet.
        todo: How many are left.
    """
    return f"; about {in_words(seconds / done * todo)} left" if done and todo else ""


class Heartbeat:
    """Now and then a line with the rate and the time left.

    Args:
        label: What is done, at the beginning of a line.
        total: Steps in all.
        done: Steps that were done before.
        every: Seconds between two lines; shorter work has none.
        tell: Takes a line.
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
