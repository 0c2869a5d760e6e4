"""Timing for the benchmarks: two steps run alternately, so that a busy machine slows both equally."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

Step = Callable[[], object]
Clock = Callable[[], float]


def seconds(step: Step, clock: Clock = time.perf_counter) -> float:
    """Time of one call, including the accelerator's work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = clock()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start


def compute_clock() -> Clock:
    """Clock for pure computation: the CPU time of this process, which does not include other programs.

    With an accelerator it is wall time, because the CPU only waits.
    """
    return time.perf_counter if torch.cuda.is_available() else time.process_time


def compare(
    step: Step, baseline: Step, repeats: int, warmup: int = 1, clock: Clock = time.perf_counter
) -> tuple[float, float, float]:
    """Median ratio of a step's time to its baseline's, and both median times in seconds.

    The two run alternately and swap their order every time; each ratio is of two consecutive calls.
    """
    for _ in range(warmup):
        step()
        baseline()
    ours, theirs = [], []
    for turn in range(repeats):
        if turn % 2:
            theirs.append(seconds(baseline, clock))
            ours.append(seconds(step, clock))
        else:
            ours.append(seconds(step, clock))
            theirs.append(seconds(baseline, clock))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), statistics.median(ours), statistics.median(theirs)


def device() -> torch.device:
    """The accelerator if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def machine() -> str:
    """One line that describes the machine of the measurements."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return f"torch {torch.__version__}, {name}"
