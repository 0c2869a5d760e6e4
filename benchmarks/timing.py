"""What the benchmarks share: two steps timed in turns, so that a busy machine slows both alike."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Step = Callable[[], object]


def seconds(step: Step) -> float:
    """Wall time of one call, the accelerator's work included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(step: Step, baseline: Step, repeats: int, warmup: int = 1) -> tuple[float, float, float]:
    """Median ratio of a step's time to its baseline's, and both median times in seconds.

    The two take turns and swap places every time; each ratio is of two neighbouring calls.
    """
    for _ in range(warmup):
        step()
        baseline()
    ours, theirs = [], []
    for turn in range(repeats):
        if turn % 2:
            theirs.append(seconds(baseline))
            ours.append(seconds(step))
        else:
            ours.append(seconds(step))
            theirs.append(seconds(baseline))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), statistics.median(ours), statistics.median(theirs)


def device() -> torch.device:
    """The accelerator where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """One line that says on what the figures were taken."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {name}"
