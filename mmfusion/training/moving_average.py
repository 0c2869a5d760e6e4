"""Exponential moving average of the weights, used for validation and saving."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from timm.utils import ModelEmaV3
from torch import nn
from transformers.trainer_callback import TrainerCallback, TrainerState

AVERAGE = "average.safetensors"


class MovingAverage(TrainerCallback):
    """Exponential moving average of a module's weights and buffers over the steps of a run (timm).

    After step t (from 1) the average moves by ``1 - d`` towards the weights, with d the smaller of ``decay`` and
    (t - 1) / (t + 3): early in a run it weights the last quarter of the steps most instead of the initial weights.

    Args:
        module: The trained module; its ``state_dict`` is averaged.
        decay: Value of d in later steps, in (0, 1); 0.998 averages over about 500 steps.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.module, self.is_applied = module, False
        self.average = ModelEmaV3(module, decay=decay, use_warmup=True, warmup_gamma=4.0, warmup_power=1.0)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Update the average with the weights of a step."""
        self.average.update(self.module, step=state.global_step)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Use the average in the module inside the context; nested contexts have no effect."""
        if self.is_applied:
            yield
            return
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        """Swap the values of both modules, keeping the tensors that the optimizer and other processes refer to."""
        pairs = zip(_tensors(self.module), _tensors(self.average.module), strict=True)
        for own, other in pairs:
            own.data, other.data = other.data, own.data
        self.is_applied = not self.is_applied

    def save(self, folder: Path) -> None:
        """Write the average to a checkpoint."""
        values = self.average.module.state_dict()
        save_file({name: value.contiguous() for name, value in values.items()}, folder / AVERAGE)

    def load(self, folder: Path) -> None:
        """Load the average written by :meth:`save`."""
        self.average.module.load_state_dict(load_file(folder / AVERAGE))


def _tensors(module: nn.Module) -> Iterator[Any]:
    return chain(module.parameters(), module.buffers())
