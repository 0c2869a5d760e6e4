"""The transformers Trainer with our losses, parameter groups, data order, figures and states."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import Trainer, TrainingArguments
from transformers.optimization import get_cosine_schedule_with_warmup
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

from mmfusion.data.processor import NOT_INPUTS
from mmfusion.outputs import FusionOutput
from mmfusion.training import checkpoints
from mmfusion.training.config import TrainConfig
from mmfusion.training.epochs import EpochLog, ProgressBar

WEIGHTS = "model.safetensors"

ADVICE = "training stopped before the weights moved; try a smaller train.lr, or train.precision fp32."


class Task(nn.Module):
    """Model and loss as the one module that the Trainer moves, wraps and saves.

    It hides the model's ``config``, which is a plain dict here, where the Trainer and its trackers expect an object.
    """

    accepts_loss_kwargs = False

    def __init__(self, model: Any, loss: Any) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, **inputs: Tensor) -> FusionOutput:
        """The model's output; the loss is taken outside, in full precision."""
        return self.model(**inputs)


class EpochOrder(Sampler[int]):
    """Order of the training rows in an epoch, a function of seed and epoch alone.

    Every process draws the same order and takes its share of it, so N processes with batches of B see what one process
    with batches of N x B sees; and a resumed run goes on with the order that it left.

    Args:
        rows: number of rows; as many are drawn.
        seed: seed of the run.
        weights: (rows,) relative frequency of each row, drawn with replacement; None takes every row once.
    """

    def __init__(self, rows: int, seed: int, weights: Tensor | None = None) -> None:
        self.rows = rows
        self.seed = seed
        self.weights = weights
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, from 0, that the next iteration is for."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.weights is None:
            yield from torch.randperm(self.rows, generator=generator).tolist()
        else:
            yield from torch.multinomial(self.weights, self.rows, replacement=True, generator=generator).tolist()


class FiniteGradients(TrainerCallback):
    """Stops before a gradient that is not finite moves the weights. With fp16, the loss scaler deals with those."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Check the gradients, clipped by now."""
        if args.fp16:
            return
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]
        if not torch.isfinite(nn.utils.get_total_norm(gradients)):
            raise FloatingPointError(f"The gradients are not finite at step {state.global_step + 1}: {ADVICE}")


class FusionTrainer(Trainer):
    """The transformers Trainer for a ``FusionModel``.

    The gradient of a step is that of the mean loss over all rows of the step, however they are split into processes and
    accumulated batches. (With several processes, a last step of too few rows is filled up from the epoch's beginning.)

    Args:
        model: a ``FusionModel``.
        loss: ``loss(output, labels)`` -> dict with ``"loss"``.
        args: the Trainer's arguments; ``output_dir`` is the folder of the states.
        config: rates, decay and warm-up.
        collate: list of rows -> batch.
        train_rows: data set to train on; ``set_epoch(epoch)`` is called on it where it has that method.
        order: order of its rows.
        val_rows: data set for the figures of an epoch, or None.
        figures: (labels (N,), logits (N, C)) -> name -> value, over all validation rows.
        log: keeps the epochs' figures.

    Raises:
        FloatingPointError: the loss, the gradients or a validation output are not finite.
    """

    #: compute_loss divides by the rows of the whole step itself.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        args: TrainingArguments,
        *,
        config: TrainConfig,
        collate: Callable[[list[Any]], dict[str, Tensor]],
        train_rows: Dataset[Any],
        order: EpochOrder,
        val_rows: Dataset[Any] | None,
        figures: Callable[[Any, Any], dict[str, float]],
        log: EpochLog,
    ) -> None:
        self.config = config
        self.order = order
        self.train_rows: Any = train_rows
        self.log_of_epochs = log
        self.task = Task(model, loss)
        super().__init__(
            model=self.task,
            args=args,
            data_collator=collate,
            train_dataset=train_rows,
            eval_dataset=val_rows,
            compute_loss_func=loss,
            compute_metrics=lambda prediction: figures(prediction.label_ids, prediction.predictions),
            callbacks=[ProgressBar(), log, FiniteGradients()],
        )
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)
        log.attach(self)

    # -- data ------------------------------------------------------------------------------------------------------

    def _get_train_sampler(self, train_dataset: Dataset[Any] | None = None) -> EpochOrder:
        return self.order

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """All validation rows: that a last batch of one row is left out of training does not concern them."""
        left_out, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            return super().get_eval_dataloader(eval_dataset)
        finally:
            self.args.dataloader_drop_last = left_out

    def begin_epoch(self, epoch: int) -> None:
        """Tell sampler and data set which epoch comes next."""
        self.order.set_epoch(epoch)
        if hasattr(self.train_rows, "set_epoch"):
            self.train_rows.set_epoch(epoch)

    # -- optimisation ----------------------------------------------------------------------------------------------

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the model's own parameter groups."""
        if self.optimizer is None:
            rates = self.config.lr, self.config.weight_decay, self.config.encoder_lr_scale
            self.optimizer = torch.optim.AdamW(self.task.model.param_groups(*rates))
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LambdaLR:
        """Linear warm-up, then a cosine to zero, of every group's own rate."""
        if self.lr_scheduler is None:
            warmup = math.ceil(self.config.warmup_ratio * num_training_steps)
            chosen = optimizer or self.create_optimizer()
            self.lr_scheduler = get_cosine_schedule_with_warmup(chosen, warmup, num_training_steps)
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """This batch's part of the mean loss over all rows of the step (of all processes, hence their number)."""
        loss = self.task.loss
        if hasattr(loss, "step"):
            loss.step = self.state.global_step
        labels = inputs["labels"]
        output = self._forward(model, inputs)
        value = loss(output, labels)["loss"]
        if num_items_in_batch is not None:
            value = value * (len(labels) * self.accelerator.num_processes / num_items_in_batch)
        return (value, output) if return_outputs else value

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of one batch, stopped by a loss that is not finite."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"The loss is {value} at step {self.state.global_step + 1}: {ADVICE}")
        self.log_of_epochs.add(value)
        return loss

    @staticmethod
    def _forward(model: nn.Module, inputs: dict[str, Tensor]) -> FusionOutput:
        return model(**{name: value for name, value in inputs.items() if name not in NOT_INPUTS})

    # -- figures ---------------------------------------------------------------------------------------------------

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate with rank 0's buffers everywhere: each process has seen other batches, so its BatchNorm differs."""
        if self.accelerator.num_processes > 1:
            for buffer in self.task.buffers():
                torch.distributed.broadcast(buffer, src=0)
        return super().evaluate(*args, **kwargs)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """(None, logits (B, C), labels (B,)): figures, the validation loss too, come from all logits together."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            logits = self._forward(model, inputs).logits
        assert logits is not None
        logits = logits.float()
        if not torch.isfinite(logits).all():
            raise FloatingPointError(
                f"The model's output is not finite on validation rows at step {self.state.global_step}."
            )
        return None, logits, inputs["labels"]

    # -- states ----------------------------------------------------------------------------------------------------

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        if self.args.should_save:
            save_file({name: x.contiguous() for name, x in self._trained_state().items()}, folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        path = Path(resume_from_checkpoint) / WEIGHTS
        saved, own = load_file(path), self._trained_state()
        if saved.keys() != own.keys():
            raise ValueError(f"{path} holds other weights: {', '.join(sorted(saved.keys() ^ own.keys())[:5])}.")
        self.task.load_state_dict(saved, strict=False)

    def _trained_state(self) -> dict[str, Tensor]:
        """All weights and buffers but those of frozen encoders, which the run's beginning makes again."""
        modules = getattr(self.task.model, "frozen", ())
        frozen = tuple(f"{name}." for name, module in self.task.named_modules() if module in modules)
        return {name: x for name, x in self.task.state_dict().items() if not name.startswith(frozen)}

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            root = Path(str(self.args.output_dir))
            checkpoints.seal(root / f"checkpoint-{self.state.global_step}")
            checkpoints.prune(root)
        self.accelerator.wait_for_everyone()
