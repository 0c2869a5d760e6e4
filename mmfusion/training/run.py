"""``train(config)``: from a table of cases to a run folder."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import IntervalStrategy, TrainerCallback, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from mmfusion import registry
from mmfusion.data import CaseTable, MultimodalDataset
from mmfusion.data.notices import NoticeKind
from mmfusion.data.split_file import write_split_table
from mmfusion.evaluation.metrics import headline
from mmfusion.evaluation.site import crop_line
from mmfusion.files import sole_writer
from mmfusion.hardware import resolve_precision
from mmfusion.inference.predictor import Predictor
from mmfusion.task import Task
from mmfusion.training import checkpoints
from mmfusion.training.build import build_loss, label_counts, needs_aux_heads, with_saved_columns, with_task
from mmfusion.training.check import check_settings
from mmfusion.training.config import RunConfig
from mmfusion.training.epochs import EpochLog, ProgressBar, Record, best_of, restored, should_stop, steps_per_epoch
from mmfusion.training.finish import TrainResult, finish, save
from mmfusion.training.rows import open_rows, read_training_cases
from mmfusion.training.run_folder import RunFolder
from mmfusion.training.settling import settle
from mmfusion.training.trainer import FusionTrainer, trainer_arguments
from mmfusion.training.unread import moved_by
from mmfusion.training.weights import words


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Suppress transformers' log lines and loading bars, which would interrupt the line per epoch; errors are shown."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


@sole_writer
@_quiet_transformers()
def train(
    config: RunConfig,
    *,
    images_checked: bool = False,
    judged_on: Sequence[str] = ("test", "val"),
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult:
    """Train a model on a table of cases and write the run folder.

    All rows are checked before training starts. Class names come from the training rows. The best epoch is selected on
    the validation rows by ``train.metric``; the test rows, if any, are evaluated once, at the end. Under ``torchrun``
    several processes share the rows of each step, and only rank 0 writes.

    Args:
        config: The run.
        images_checked: Whether the images are known to be valid, as in an experiment after its first run.
        judged_on: Splits to evaluate the best model on; the first one with rows is used.
        callbacks: Additional callbacks of the transformers Trainer. If one stops training within an epoch, the partial
            epoch is validated and recorded, and the run ends with the best epoch so far.

    Raises:
        FileExistsError: The run folder has a run, and ``train.resume`` is not set.
        FileNotFoundError: The data or an image is missing.
        ValueError: There are bad rows or too few rows or classes, a setting is out of range, or the configuration or
            data of a resumed run changed.
        TypeError: The model or the loss has no such keyword.
        FloatingPointError: Loss, gradients or outputs became infinite or NaN.
    """
    registry.load_plugins(config.plugins)
    config = with_saved_columns(with_task(config))
    check_settings(config)
    folder = RunFolder(config.output)
    resuming = folder.check(config)
    args = trainer_arguments(config, folder.states)  # initializes the process group
    is_main, processes = args.process_index == 0, args.distributed_state

    cases = read_training_cases(config, images_checked)
    settled = settle(config, cases, args.world_size)
    config, provenance = settled.config, settled.provenance
    if resuming:
        folder.check(config, complete=True)
        folder.check_provenance(provenance)
    processes.wait_for_everyone()

    loss = build_loss(config.train, cases.question, label_counts(cases))
    predictor = settled.predictor(cases, aux_heads=needs_aux_heads(loss))
    if is_main:
        folder.begin(config, provenance)
        write_split_table(cases, folder.split)
        towers = words(settled.starts, config.train)
        crop = crop_line(cases.select("train"), predictor.processor)
        lines = settled.columns.summary(), *settled.told, _first_line(config, args, predictor, cases), towers, crop
        print("\n".join(filter(None, lines)))
    processes.wait_for_everyone()
    with processes.main_process_first():
        rows = open_rows(config, cases, predictor, args.world_size)
    if is_main:
        _print_notices(predictor, cases, {"train": rows.train, "val": rows.val}, config.privacy.min_patients)
    if rows.val is None:
        args.eval_strategy = IntervalStrategy.NO

    def keep(record: Record) -> None:
        with trainer.averaged():
            save(predictor, folder.best, record)

    def begin_epoch(epoch: int) -> None:
        rows.begin_epoch(epoch)
        if config.train.head_epochs:
            predictor.network().hold_encoders(epoch < config.train.head_epochs)

    log = EpochLog(folder.metrics, config.train, begin_epoch=begin_epoch, on_best=keep)
    trainer = FusionTrainer(
        predictor.network(),
        loss,
        args,
        config=config.train,
        rows=rows,
        metrics=lambda labels, logits: (
            _metrics(labels, logits, predictor.task)
            | moved_by(predictor.network(), rows.val, workers=config.train.workers)
        ),
        callbacks=[ProgressBar(), log, *callbacks],
        on_loss=log.add,
    )
    _train_or_resume(trainer, log, folder, config)
    with trainer.averaged():
        return finish(config, folder, cases, predictor, rows, log.history, judged_on)


def _first_line(config: RunConfig, args: TrainingArguments, predictor: Predictor, cases: CaseTable) -> str:
    """The first log line of a run."""
    parameters = sum(p.numel() for p in predictor.network().parameters() if p.requires_grad)
    rows = ", ".join(f"{count:,} {split}" for split, count in cases.splits.items())
    memory = ", channels_last" if predictor.channels_last else ""
    processes = f" x {args.world_size} processes" if args.world_size > 1 else ""
    how = f"{resolve_precision(config.train.precision)}{memory} on {args.device.type}{processes}"
    asked = f"{len(cases.labels)} {cases.question.noun}"
    return f"training {config.model.name} ({parameters:,} trainable parameters) on {asked}, rows: {rows}; {how}"


def _print_notices(predictor: Predictor, cases: CaseTable, opened: Mapping[str, Any], min_patients: int) -> None:
    """Print inputs of each split that the model cannot learn or has not learned, and why it does not learn some."""
    reader = replace(predictor.processor, image_size=None)
    for split in cases.splits:
        rows = opened.get(split)
        rows = rows if isinstance(rows, MultimodalDataset) else MultimodalDataset(cases.select(split), reader)
        notices = rows.notices()
        for line in notices.lines():
            print(f"{split}: {line}")
        if split == "train" and notices.kinds & {NoticeKind.UNSEEN_CATEGORY, NoticeKind.UNKNOWN_WORD}:
            print(f"values and words of fewer than {min_patients} patients are not learned (privacy.min_patients)")


def _metrics(targets: Any, raw: Any, task: Task) -> dict[str, float]:
    """Metrics of targets (N, ...) and raw outputs (N, W)."""
    answers = task.activate(torch.from_numpy(raw).double()).numpy()
    return headline(task.figures(task.truth(targets), answers), task.metrics)


def _train_or_resume(trainer: FusionTrainer, log: EpochLog, folder: RunFolder, config: RunConfig) -> None:
    """Train, from the newest complete checkpoint if there is one; a finished run only loads its last weights."""
    whole = checkpoints.complete(folder.states)
    is_main = trainer.is_world_process_zero()
    if is_main and (damaged := [state for state in checkpoints.states(folder.states) if state not in whole]):
        print(f"{', '.join(map(str, damaged))} changed since the run wrote it and is ignored")
    if not whole:
        trainer.train()
        return
    has_best = folder.has_best()
    state = whole[0] if has_best else _mending(whole, folder, config.train.metric)
    saved, history = _saved(state)
    if is_main:
        print(f"resuming from {state} ({len(history)} epochs done)")
        if not has_best and _is_best_epoch(saved, history, config.train.metric):
            trainer.load_state(state)
            log.on_best(history[-1])
    in_midst = saved.global_step % steps_per_epoch(saved) != 0
    was_stopped = bool(history) and in_midst and history[-1]["step"] == saved.global_step
    ended = len(history) >= config.train.epochs or was_stopped
    if ended or should_stop(history, config.train.metric, config.train.patience):
        log.history = history
        trainer.load_state(state)
    else:
        trainer.resume(state)


def _saved(state: Path) -> tuple[TrainerState, list[Record]]:
    saved = TrainerState.load_from_json(str(state / "trainer_state.json"))
    return saved, restored(saved.stateful_callbacks)["history"]


def _is_best_epoch(saved: TrainerState, history: list[Record], metric: str) -> bool:
    """Whether a checkpoint has the weights of the best epoch."""
    return best_of(history, metric) == len(history) - 1 and history[-1]["step"] == saved.global_step


def _mending(states: Sequence[Path], folder: RunFolder, metric: str) -> Path:
    """The newest checkpoint from which a missing best model can be trained again.

    Raises:
        ValueError: All checkpoints are later.
    """
    best = best_of(history := _saved(states[0])[1], metric)
    for state in states:
        if best is None or _saved(state)[0].global_step <= history[best]["step"]:
            return state
    raise ValueError(
        f"{folder.best} is missing or damaged, and all states are later than its epoch {history[best or 0]['epoch']}; "
        f"delete {folder.states} to train from scratch, or choose another --output."
    )
