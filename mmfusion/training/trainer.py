"""A transformers Trainer with this library's losses, parameter groups, data order, metrics and checkpoints."""

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import Trainer, TrainingArguments
from transformers.optimization import get_cosine_schedule_with_warmup
from transformers.trainer_callback import PrinterCallback, ProgressCallback, TrainerCallback

from mmfusion.files import room_for
from mmfusion.hardware import has_accelerator, of_any_rows, resolve_precision
from mmfusion.models.presence import without_needless
from mmfusion.outputs import FusionOutput
from mmfusion.task import task_of
from mmfusion.training import checkpoints
from mmfusion.training.config import RunConfig, TrainConfig
from mmfusion.training.mixing import Mixing
from mmfusion.training.moving_average import MovingAverage
from mmfusion.training.rows import EpochOrder, Rows

WEIGHTS = "model.safetensors"

ADVICE = "training stopped before the weights were updated; try a smaller train.lr, or train.precision fp32."


def trainer_arguments(config: RunConfig, states: Path) -> TrainingArguments:
    """Training arguments. Creating them initializes the process group under torchrun."""
    t = config.train
    precision = resolve_precision(t.precision)
    use_cpu = not has_accelerator()
    fixed: dict[str, Any] = {"disable_tqdm": True, "log_level": "error", "log_level_replica": "error"}
    fixed |= dict.fromkeys(("eval_strategy", "save_strategy", "logging_strategy"), "epoch")
    args = TrainingArguments(
        output_dir=str(states),
        run_name=states.parent.name,
        seed=config.seed,
        data_seed=config.seed,
        num_train_epochs=t.epochs,
        per_device_train_batch_size=t.batch_size,
        per_device_eval_batch_size=t.batch_size,
        gradient_accumulation_steps=t.gradient_accumulation,
        average_tokens_across_devices=True,
        max_grad_norm=t.grad_clip,
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=use_cpu,
        ddp_find_unused_parameters=True,
        logging_nan_inf_filter=False,
        report_to=t.trackers or "none",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=t.workers,
        dataloader_pin_memory=not use_cpu,
        **fixed,
    )
    # several GPUs need several processes (torchrun); one process uses the first GPU
    args._n_gpu = min(args.n_gpu, 1)
    return args


class ModelAndLoss(nn.Module):
    """Model and loss as one module, for the Trainer to move, wrap and save.

    Its state has what a resumed run needs: all weights and buffers except those of frozen modules.
    """

    accepts_loss_kwargs = False

    def __init__(self, model: Any, loss: Any, compile: bool = False) -> None:
        super().__init__()
        self.model, self.loss, self._compiled = model, loss, compile
        if compile:
            model.compile()  # in place: names in states and files stay the same

    def forward(self, labels: Tensor | None = None, **inputs: Tensor) -> FusionOutput:
        """The model's output on a batch; the loss is computed outside, in full precision."""
        if self._compiled:
            inputs = without_needless(inputs, self.model.towers)
            of_any_rows(inputs)
        return self.model(**inputs)

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """Weights and buffers that training changes, by name."""
        modules = set(getattr(self.model, "frozen", ()))
        frozen = tuple(f"{name}." for name, module in self.named_modules() if module in modules)
        return {n: x for n, x in super().state_dict(*args, **kwargs).items() if not n.startswith(frozen)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load the result of :meth:`state_dict`; ValueError for another model or other frozen parts."""
        if other := sorted(state_dict.keys() ^ self.state_dict().keys()):
            raise ValueError(f"The state to resume from has other weights: {', '.join(other[:5])}.")
        result = super().load_state_dict(state_dict, strict=False, assign=assign)
        result.missing_keys.clear()  # frozen weights, about which the Trainer would warn
        return result


class FiniteGradients(TrainerCallback):
    """Raises before a non-finite gradient updates the weights. With fp16, the loss scaler handles those."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        gradients = [p.grad for p in kwargs["model"].parameters() if p.grad is not None]  # already clipped
        if not args.fp16 and not torch.isfinite(nn.utils.get_total_norm(gradients)):
            raise FloatingPointError(f"The gradients are not finite at step {state.global_step + 1}: {ADVICE}")


class SealStates(TrainerCallback):
    """Marks each checkpoint as complete after every process has written its part, and deletes old ones."""

    def on_save(self, args: TrainingArguments, state: Any, control: Any, **kwargs: Any) -> None:
        args.distributed_state.wait_for_everyone()
        if args.should_save:
            root = Path(str(args.output_dir))
            checkpoints.seal(root / f"checkpoint-{state.global_step}")
            checkpoints.prune(root)
        args.distributed_state.wait_for_everyone()


class FusionTrainer(Trainer):
    """The transformers Trainer for a ``FusionModel``.

    The gradient of a step is that of the mean loss over all its rows, however they are split into processes and
    accumulated batches. (With several processes, an incomplete last step is filled from the start of the epoch.)

    Args:
        model: A ``FusionModel``.
        loss: ``loss(output, labels)`` -> dict with ``"loss"``.
        args: Training arguments; ``output_dir`` is the folder of the checkpoints.
        config: Learning rates, decay and warm-up.
        rows: Training and validation rows.
        metrics: Maps (labels (N,), logits (N, C)) of all validation rows to name -> value.
        callbacks: Called before gradients are checked and checkpoints sealed.
        on_loss: Called with each batch's contribution to the loss of a step.

    Raises:
        FloatingPointError: The loss, the gradients or a validation output are not finite.
    """

    #: compute_loss itself divides by the rows of the whole step.
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: nn.Module,
        loss: nn.Module,
        args: TrainingArguments,
        *,
        config: TrainConfig,
        rows: Rows,
        metrics: Callable[[Any, Any], dict[str, float]],
        callbacks: Sequence[TrainerCallback],
        on_loss: Callable[[float], None],
    ) -> None:
        self.config, self.rows, self.on_loss = config, rows, on_loss
        self.pair = ModelAndLoss(model, loss, config.compile)
        super().__init__(
            model=self.pair,
            args=args,
            data_collator=rows.train.collate,
            train_dataset=rows.train,
            eval_dataset=rows.val,
            compute_loss_func=loss,
            compute_metrics=lambda prediction: metrics(prediction.label_ids, prediction.predictions),
            callbacks=[*callbacks, FiniteGradients(), SealStates()],
        )
        for printer in (PrinterCallback, ProgressCallback):
            self.remove_callback(printer)
        mixes = config.mixup is not None or config.cutmix is not None
        self.mixing = Mixing(config.mixup, config.cutmix, args.seed) if mixes else None
        self.average = None if config.ema is None else MovingAverage(self.pair, config.ema)
        if self.average is not None:
            self.add_callback(self.average)

    def averaged(self) -> AbstractContextManager[None]:
        """Use the moving average of the weights inside the context, if the run has one."""
        return nullcontext() if self.average is None else self.average.applied()

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        return self.rows.order

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """AdamW over the model's parameter groups."""
        if self.optimizer is None:
            names = ("lr", "weight_decay", "encoder_lr_scale", "layer_decay")
            rates = {name: getattr(self.config, name) for name in names}
            self.optimizer = torch.optim.AdamW(self.pair.model.param_groups(**rates))
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> LambdaLR:
        """Linear warm-up, then cosine decay to zero, for each group's learning rate."""
        if self.lr_scheduler is None:
            warmup = math.ceil(self.config.warmup_ratio * num_training_steps)
            chosen = optimizer or self.create_optimizer()
            self.lr_scheduler = get_cosine_schedule_with_warmup(chosen, warmup, num_training_steps)
        return self.lr_scheduler

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This batch's share of the mean loss over the step, times the number of processes, since DDP averages."""
        labels = inputs["labels"]
        if self.mixing is None:
            output = model(**inputs)
            value = self._loss(output, labels)
        else:
            mixed = self.mixing(inputs, self.state.global_step)
            output = model(**{**inputs, "pixel_values": mixed.pixel_values})
            other = self._loss(output, labels[mixed.partner])
            value = mixed.share * self._loss(output, labels) + (1 - mixed.share) * other
        if num_items_in_batch is not None:
            value = value * (len(labels) * self.accelerator.num_processes / num_items_in_batch)
        return (value, output) if return_outputs else value

    def _loss(self, output: FusionOutput, labels: Tensor) -> Tensor:
        loss = self.pair.loss
        if hasattr(loss, "step"):
            loss.step = self.state.global_step
        value: Tensor = loss(output, labels)["loss"]
        return value

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward pass of one batch; raises if the loss is not finite."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        value = loss.item()
        if not math.isfinite(value):
            raise FloatingPointError(f"The loss is {value} at step {self.state.global_step + 1}: {ADVICE}")
        self.on_loss(value)
        return loss

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate the averaged weights, if any, and run the callbacks while the model holds them.

        All processes use rank 0's buffers, since BatchNorm statistics differ between them.
        """
        with self.averaged():
            if self.accelerator.num_processes > 1:
                for buffer in self.pair.buffers():
                    torch.distributed.broadcast(buffer, src=0)
            return super().evaluate(*args, **kwargs)

    def prediction_step(
        self, model: Any, inputs: dict[str, Tensor], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[None, Tensor, Tensor]:
        """Return (None, raw outputs (B, W), labels (B, ...)); metrics are computed over all rows together."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            raw = task_of(self.pair.model).raw(model(**inputs))
        if not torch.isfinite(raw).all():
            step = self.state.global_step
            raise FloatingPointError(f"The model's output is not finite on validation rows at step {step}.")
        return None, raw.float(), inputs["labels"]

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the weights of a checkpoint, without a pickle of the arguments."""
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        if self.args.should_save:
            save_file({name: x.contiguous() for name, x in self.pair.state_dict().items()}, folder / WEIGHTS)
            if self.average is not None:
                self.average.save(folder)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save a checkpoint; if the disk is full, leave nothing behind."""
        state = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
        try:
            with room_for(state):
                super()._save_checkpoint(*args, **kwargs)
        except OSError:
            shutil.rmtree(state, ignore_errors=True)
            raise

    def resume(self, state: Path) -> None:
        """Resume training from a checkpoint.

        Raises:
            ValueError: A file contains objects other than numbers.
        """
        if self.average is not None:
            self.average.load(state)
        try:
            self.train(resume_from_checkpoint=str(state))
        except UnpicklingError:
            raise ValueError(f"{state} has objects other than numbers; delete it to resume an earlier state.") from None

    def load_state(self, state: Path) -> None:
        """Load the weights of a checkpoint without resuming."""
        self.pair.load_state_dict(load_file(state / WEIGHTS))
        if self.average is not None:
            self.average.load(state)
