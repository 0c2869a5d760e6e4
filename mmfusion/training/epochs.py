"""Per-epoch records, selection of the best epoch, early stopping, and the epoch's log line."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import IntervalStrategy, TrainerCallback
from transformers.trainer_callback import ExportableState, TrainerControl, TrainerState
from transformers.trainer_utils import has_length

from mmfusion.evaluation.metrics import EVERY_METRIC
from mmfusion.files import write_text
from mmfusion.progress import progress
from mmfusion.training.config import TrainConfig

#: Leading keys of a record; the others follow by name.
FIRST = ("epoch", "step", "train_loss")

Record = dict[str, Any]


def best_of(history: list[Record], metric: str) -> int | None:
    """Index of the best epoch, the earliest if tied; the last epoch without validation metrics."""
    if not history:
        return None
    if metric not in history[-1]:
        return len(history) - 1
    sign = 1 if EVERY_METRIC[metric].higher_is_better else -1
    return max(range(len(history)), key=lambda i: (sign * history[i][metric], -i))


def should_stop(history: list[Record], metric: str, patience: int | None) -> bool:
    """Whether the best epoch was ``patience`` epochs ago."""
    best = best_of(history, metric)
    return patience is not None and best is not None and len(history) - 1 - best >= patience


def mean_over_processes(value: float) -> float:
    """The mean of a number over all processes."""
    state = PartialState()
    if state.num_processes == 1:
        return value
    return reduce(torch.tensor(value, dtype=torch.float64, device=state.device), reduction="mean").item()


class EpochLog(TrainerCallback, ExportableState):
    """One record per epoch, in ``metrics.jsonl`` and in the checkpoints.

    A record has ``epoch`` (from 1), ``step``, ``train_loss`` (mean over the steps), the validation metrics (with
    several modalities also ``moved_by_<modality>``), ``lr`` (of all but the encoders, at the end of the epoch)
    and ``seconds``.

    Args:
        path: JSON lines file.
        config: Selection metric, patience, steps between checkpoints within an epoch, and peak learning rate.
        begin_epoch: Called with the epoch, from 0, before its first step.
        on_best: Called in the main process with the record of each new best epoch, before its checkpoint is saved.
        announce: Receives the log line of each epoch.
    """

    def __init__(
        self,
        path: Path,
        config: TrainConfig,
        *,
        begin_epoch: Callable[[int], None],
        on_best: Callable[[Record], None],
        announce: Callable[[str], None] = print,
    ) -> None:
        self.path, self.config, self.announce = path, config, announce
        self.begin_epoch, self.on_best = begin_epoch, on_best
        self.history: list[Record] = []
        self.loss_sum = self.seconds = 0.0
        self.began = time.monotonic()

    def add(self, loss: float) -> None:
        """Add the loss contribution of one batch."""
        self.loss_sum += loss

    def state(self) -> dict[str, Any]:
        """State of a resumable run (called by the Trainer when saving)."""
        spent = self.seconds + time.monotonic() - self.began
        known = {"history": self.history, "loss_sum": self.loss_sum, "seconds": spent}
        return {"args": {}, "attributes": known}

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start from scratch or from the restored state."""
        if state.global_step > 0:
            for name, value in restored(state.stateful_callbacks).items():
                setattr(self, name, value)
        else:
            # different dropout in each process
            torch.manual_seed(args.seed + args.process_index)
        self.began = time.monotonic()
        self._write(state)

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.begin_epoch(state.global_step // steps_per_epoch(state))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Request a checkpoint within an epoch; at the end of an epoch one is saved after the validation."""
        ends_epoch = state.global_step % steps_per_epoch(state) == 0
        if self.config.save_steps and state.global_step % self.config.save_steps == 0 and not ends_epoch:
            self.loss_sum = mean_over_processes(self.loss_sum)
            control.should_save = True

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record the training metrics; the validation metrics follow, if there is a validation."""
        self.loss_sum = mean_over_processes(self.loss_sum)
        group, steps = kwargs["optimizer"].param_groups[-1], steps_per_epoch(state)
        done = state.global_step % steps or steps  # fewer if a callback stopped the run within an epoch
        self.record: Record = {"epoch": math.ceil(state.global_step / steps), "step": state.global_step}
        self.record |= {"train_loss": self.loss_sum / done, "lr": self.config.lr * group["lr"] / group["initial_lr"]}
        if args.eval_strategy == IntervalStrategy.NO:
            self._finish(state, control)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Add the validation metrics and close the record."""
        own = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")
        figures = {name.removeprefix("eval_"): value for name, value in kwargs["metrics"].items()}
        self.record |= {k: v for k, v in figures.items() if k not in own and k not in self.record}
        if self.config.metric not in self.record:
            raise ValueError(
                f"train.metric {self.config.metric!r} is not a validation metric; "
                f"available: {', '.join(sorted(figures))}."
            )
        self._finish(state, control)

    def _finish(self, state: TrainerState, control: TrainerControl) -> None:
        now = time.monotonic()
        self.record["seconds"] = round(self.seconds + now - self.began, 3)
        self.history.append({name: self.record[name] for name in FIRST} | dict(sorted(self.record.items())))
        self.loss_sum, self.seconds, self.began = 0.0, 0.0, now
        is_best = best_of(self.history, self.config.metric) == len(self.history) - 1
        self._write(state)
        if state.is_world_process_zero:
            self.announce(self.line(self.record, state.num_train_epochs, is_best))
            if is_best:
                self.on_best(self.record)
        if should_stop(self.history, self.config.metric, self.config.patience):
            control.should_training_stop = True
            if state.is_world_process_zero and self.record["epoch"] < state.num_train_epochs:
                self.announce(f"stopped early: {self.config.metric} did not improve in {self.config.patience} epochs")

    def line(self, record: Record, epochs: int, is_best: bool) -> str:
        """The log line of an epoch."""
        parts = [f"epoch {record['epoch']}/{epochs}", f"loss {record['train_loss']:.4f}"]
        if self.config.metric in record:
            parts.append(f"val {self.config.metric} {record[self.config.metric]:.4f}{' (best)' if is_best else ''}")
        return "  ".join([*parts, f"{record['seconds']:.1f} s"])

    def _write(self, state: TrainerState) -> None:
        if state.is_world_process_zero:
            write_text(self.path, "".join(json.dumps(record) + "\n" for record in self.history))


def restored(stateful_callbacks: Any) -> dict[str, Any]:
    """The state of :meth:`EpochLog.state` in a trainer state."""
    return stateful_callbacks["EpochLog"]["attributes"]


def steps_per_epoch(state: TrainerState) -> int:
    """Number of optimizer steps per epoch."""
    return state.max_steps // state.num_train_epochs


class ProgressBar(TrainerCallback):
    """Rate and time left of each epoch and validation: a bar in a terminal, otherwise one line per minute."""

    bar: Any = None

    def _open(self, state: TrainerState, label: str, total: int, done: int = 0) -> None:
        if state.is_world_process_zero:
            self.bar = progress(label, total, "step", done=done, leave=False)

    def _close(self, *args: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()
        self.bar = None

    def on_epoch_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        epoch, done = divmod(state.global_step, steps_per_epoch(state))
        self._open(state, f"epoch {epoch + 1}/{state.num_train_epochs}", steps_per_epoch(state), done)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.update()

    def on_prediction_step(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loader = kwargs["eval_dataloader"]
        if self.bar is None and has_length(loader):
            self._open(state, "validation", len(loader))
        if self.bar is not None:
            self.bar.update()

    on_epoch_end = _close
    on_evaluate = _close
