"""Durations in words, and progress lines for logs, where a bar would be unreadable."""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Self, TypeVar

T = TypeVar("T")


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
    """Occasional log line with rate and remaining time, used like a tqdm bar.

    Args:
        label: Beginning of the line.
        total: Total number of units; None if unknown.
        done: Number of units already done.
        every: Seconds between lines; shorter work logs none.
        tell: Called with each line.
        unit: What is counted.
    """

    def __init__(
        self,
        label: str,
        total: int | None,
        done: int = 0,
        every: float = 60.0,
        tell: Callable[[str], None] = print,
        unit: str = "step",
    ) -> None:
        self.label, self.total, self.every, self.tell, self.unit = label, total, every, tell, unit
        self.first = self.done = done
        self.began = self.told = time.monotonic()

    def update(self, count: int = 1) -> None:
        """Count finished units."""
        self.done += count
        now = time.monotonic()
        if now - self.told >= self.every:
            self.told = now
            rate = (self.done - self.first) / (now - self.began)
            of = "" if self.total is None else f" of {self.total:,}"
            left = f", {in_words((self.total - self.done) / rate)} left" if self.total is not None and rate else ""
            self.tell(f"{self.label}: {self.done:,}{of} {self.unit}s, {rate:.3g} a second{left}")

    def close(self) -> None:
        """Nothing is left to show."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def progress(
    label: str, total: int | None, unit: str = "row", *, done: int = 0, shown: bool = True, leave: bool = True
) -> Any:
    """Show the progress of long work: a tqdm bar in a terminal, otherwise a :class:`Heartbeat`; a context manager.

    Args:
        label: Beginning of the line.
        total: Total number of units; None if unknown.
        unit: What is counted.
        done: Number of units already done.
        shown: False shows nothing.
        leave: Whether a finished bar stays.
    """
    from tqdm.auto import tqdm

    look: dict[str, Any] = {"unit": unit, "leave": leave, "dynamic_ncols": True, "disable": None if shown else True}
    bar = tqdm(total=total, initial=done, desc=label, **look)
    return Heartbeat(label, total, done, unit=unit) if shown and bar.disable else bar


def tracked(items: Iterable[T], label: str, total: int, unit: str = "row") -> Iterator[T]:
    """The items, with :func:`progress`."""
    with progress(label, total, unit) as bar:
        for item in items:
            yield item
            bar.update()
