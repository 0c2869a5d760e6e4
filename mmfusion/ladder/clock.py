"""The time of a ladder: how much is left, and how many epochs of a network fit into it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from transformers import TrainerCallback

from mmfusion.progress import in_words
from mmfusion.training.epochs import steps_per_epoch

#: a forward pass costs so much of a training step.
FORWARD = 0.4
#: share of a network's time that is planned: a machine that others use too is not always as fast as measured.
PLANNED = 0.9
#: share of an epoch for which a run is worth its while.
LEAST = 0.5
#: share of the time left after which the steps that were measured are enough.
MEASURING = 0.05
#: seconds of a run beside its epochs, of each second that passed before the first run: both are slow on a slow machine.
BESIDE = 0.4


class LeftOutError(Exception):
    """A rung is left out; the text says why."""


class Clock:
    """Time that runs.

    Args:
        limit: Seconds from the beginning on.
        began: The beginning; None takes now.
        now: The seconds of a clock.
    """

    def __init__(self, limit: float, began: float | None = None, *, now: Callable[[], float] = time.monotonic) -> None:
        self.limit, self.now = limit, now
        self.began = now() if began is None else began

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return self.now() - self.began

    @property
    def left(self) -> float:
        """Seconds until the end; below 0 once it is over."""
        return self.limit - self.spent

    def check(self, until: float) -> None:
        """Raise :class:`LeftOutError` where so many seconds, or fewer, are left."""
        if self.left <= until:
            words = f"only {in_words(self.left)} are left" if self.left > 0 else "the time is over"
            raise LeftOutError(f"skipped: {words}")


@dataclass
class Pace:
    """What training costs on this machine: foretold from a measured step, corrected by the runs that ended.

    Attributes:
        factor: Real seconds of an epoch over those that its steps foretell.
        fixed: Seconds of a run beside its epochs: reading, building, saving, measuring.
    """

    factor: float = 1.0
    fixed: float = 5.0

    @classmethod
    def after(cls, seconds: float) -> Pace:
        """What is assumed before any run: so many seconds went by on imports, reading and the audit."""
        return cls(fixed=max(cls.fixed, BESIDE * seconds))

    def epoch(self, step: float, steps: float, val_steps: float) -> float:
        """Seconds of an epoch.

        Args:
            step: Seconds of one training step.
            steps: Training steps in an epoch.
            val_steps: Validation batches of the same size.
        """
        return self.factor * step * (steps + FORWARD * val_steps)

    def epochs(self, epoch: float, budget: float, most: int) -> int:
        """How many epochs of so many seconds are planned for a run that has ``budget`` seconds, ``most`` at most.

        One where half of it fits: the time limit ends it then.
        """
        fitting = max(0.0, PLANNED * (budget - self.fixed) / epoch)
        return min(most, int(fitting) or int(fitting >= LEAST))

    def learn(self, foretold: float, real: float, fixed: float) -> None:
        """Take in a run: seconds of an epoch, as :meth:`epoch` said and as they were, and those beside its epochs."""
        self.factor *= real / foretold
        self.fixed = max(1.0, fixed)


class TimeLimit(TrainerCallback):
    """Stops training, in mid-epoch too, when the time of a run is over; tells each epoch with the time left.

    Attributes:
        stopped: Whether the time has stopped the run.
        epochs: How many are done.

    Args:
        clock: The time of the ladder.
        until: Seconds of the clock that have to be left when training stops.
        tell: Takes a line for each epoch.
        metric: Validation figure in that line.
    """

    def __init__(self, clock: Clock, until: float, tell: Callable[[str], None], metric: str) -> None:
        self.clock, self.until, self.tell, self.metric = clock, until, tell, metric
        self.stopped, self.epochs = False, 0.0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after this step where the time is over."""
        if self.clock.left <= self.until and state.global_step < state.max_steps:
            control.should_training_stop = self.stopped = True

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Tell the epoch."""
        self.epochs = state.global_step / steps_per_epoch(state)
        figure, stopped = kwargs["metrics"][f"eval_{self.metric}"], "; stopped by the time" if self.stopped else ""
        epochs = f"{self.epochs:.3g} of {state.num_train_epochs}"
        self.tell(f"epoch {epochs}: {self.metric} {figure:.3f}, {in_words(self.clock.left)} left{stopped}")
