"""Time management of ``mmfusion auto``: the time left, and the number of epochs that fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from mmfusion.progress import in_words
from mmfusion.training.epochs import steps_per_epoch

#: Cost of a forward pass relative to a training step.
FORWARD = 0.4
#: Share of a network's time that is planned, since a shared machine may become slower.
PLANNED = 0.9
#: Minimum number of epochs worth running, as a fraction.
LEAST = 0.5
#: Share of the time left after which the timing of steps ends.
MEASURING = 0.05
#: Overhead of a run per second spent before the first run, since both are slow on a slow machine.
BESIDE = 0.4


class LeftOutError(Exception):
    """Raised to skip a step, with the reason."""


class Clock:
    """Elapsed and remaining time.

    Args:
        limit: Seconds from the start.
        began: Start time; None means now.
        now: Clock function.
    """

    def __init__(self, limit: float, began: float | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.now = limit, now
        self.began = now() if began is None else began

    @property
    def spent(self) -> float:
        """Seconds since the start."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Remaining seconds; negative after the limit."""
        return self.limit - self.spent

    def check(self, until: float) -> None:
        """Raise :class:`LeftOutError` if at most this many seconds are left."""
        if self.left <= until:
            words = f"only {in_words(self.left)} left" if self.left > 0 else "the time limit is reached"
            raise LeftOutError(f"skipped: {words}")


@dataclass
class Pace:
    """Cost of training on this machine: predicted from timed steps and corrected by finished runs.

    Attributes:
        factor: Ratio of the measured to the predicted time of an epoch.
        fixed: Overhead of a run in seconds: reading, building, saving, evaluating.
    """

    factor: float = 1.0
    fixed: float = 5.0

    @classmethod
    def after(cls, seconds: float) -> Pace:
        """Initial estimate, from the seconds spent on imports, reading and the audit."""
        return cls(fixed=max(cls.fixed, BESIDE * seconds))

    def epoch(self, step: float, steps: float, val_steps: float) -> float:
        """Predicted seconds of an epoch.

        Args:
            step: Seconds of one training step.
            steps: Training steps in an epoch.
            val_steps: Validation batches of the same size.
        """
        return self.factor * step * (steps + FORWARD * val_steps)

    def epochs(self, epoch: float, budget: float, most: int) -> int:
        """Number of epochs that fit into ``budget`` seconds, ``most`` at most.

        At least half an epoch must fit to plan one, which the time limit then stops.
        """
        fitting = max(0.0, PLANNED * (budget - self.fixed) / epoch)
        return min(most, int(fitting) or int(fitting >= LEAST))

    def learn(self, foretold: float, real: float, fixed: float) -> None:
        """Update from a finished run: predicted and measured seconds of an epoch, and overhead."""
        self.factor *= real / foretold
        self.fixed = max(1.0, fixed)


class TimeLimit(TrainerCallback):
    """Stops training, also within an epoch, when the time of a run is over; logs each epoch with the time left.

    Attributes:
        stopped: Whether the run was stopped by the limit.
        epochs: Number of finished epochs.

    Args:
        clock: Clock of the command.
        until: Remaining seconds at which training stops.
        tell: Called with the log line of each epoch.
        metric: Validation metric in that line.
    """

    def __init__(self, clock: Clock, until: float, tell: Callable[[str], None], metric: str) -> None:
        self.clock, self.until, self.tell, self.metric = clock, until, tell, metric
        self.stopped, self.epochs = False, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after this step if the time is over."""
        if self.clock.left <= self.until and state.global_step < state.max_steps:
            control.should_training_stop = self.stopped = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Log the epoch."""
        self.epochs = state.global_step / steps_per_epoch(state)
        figure, stopped = kwargs["metrics"][f"eval_{self.metric}"], "; stopped by the limit" if self.stopped else ""
        epochs = f"{self.epochs:.3g} of {state.num_train_epochs}"
        self.tell(f"epoch {epochs}: {self.metric} {figure:.3f}, {in_words(self.clock.left)} left{stopped}")
