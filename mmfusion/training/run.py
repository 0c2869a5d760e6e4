"""``train(config)``: from a table of cases to a run folder."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import IntervalStrategy, TrainingArguments, set_seed
from transformers.utils import logging as transformers_logging

from mmfusion import registry
from mmfusion._version import __version__
from mmfusion.artifacts.folder import portable_name
from mmfusion.data import (
    CaseTable,
    MultimodalDataset,
    Processor,
    balanced_sampler,
    check_images,
    fit_wordpiece,
    load_tokenizer,
    read_cases,
)
from mmfusion.data.split_file import write_split_table
from mmfusion.evaluation.calibration import calibrate
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.metrics import METRICS, classification_metrics, headline
from mmfusion.evaluation.plots import plot_training_curves
from mmfusion.files import replacing
from mmfusion.hardware import has_accelerator, resolve_channels_last, resolve_precision
from mmfusion.inference.predictor import Predictor
from mmfusion.models import (
    FusionModel,
    create_loss,
    create_model,
    load_model,
    read_config,
    resolve_artifact,
)
from mmfusion.towers.text import BUILT_IN, weights_source
from mmfusion.training import checkpoints
from mmfusion.training.config import RunConfig, TrainConfig
from mmfusion.training.epochs import EpochLog, Record, best_of, restored, should_stop
from mmfusion.training.feature_cache import FeatureCache
from mmfusion.training.run_folder import RunFolder
from mmfusion.training.trainer import EpochOrder, FusionTrainer

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class TrainResult:
    """What came out of a run.

    Attributes:
        folder: the run folder.
        best: saved model of the best epoch.
        last: saved model of the last epoch.
        best_epoch: its number, from 1.
        val: validation figures of the best epoch; empty without validation rows.
        test: figures on the test rows, taken once, of the best model; None without test rows.
        history: the records of all epochs, as in ``metrics.jsonl``.
    """

    folder: Path
    best: Path
    last: Path
    best_epoch: int
    val: dict[str, float]
    test: dict[str, Any] | None
    history: list[Record]


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep its notes and loading bars off the screen, where each epoch has one line; errors still show."""
    verbosity, had_bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


@_quiet_transformers()
def train(config: RunConfig, *, images_checked: bool = False) -> TrainResult:
    """Train a model on a table of cases, and leave everything about it in the run folder.

    All rows are checked before training starts. Class names come from the training rows. The best epoch is chosen on
    the validation rows by ``train.metric``; the test rows, where there are any, are looked at once, at the end.
    Start it in several processes with ``torchrun`` and they share each step's rows; rank 0 alone writes.

    Args:
        config: the run.
        images_checked: the images are known to be sound, as those of a study are from its second run on.

    Returns:
        Figures and folders.

    Raises:
        FileExistsError: the run folder holds a run, and ``train.resume`` is not set.
        FileNotFoundError: the data, or an image, is missing.
        ValueError: bad rows, too few rows or classes, a setting out of range, or a resumed run whose configuration or
            data changed.
        TypeError: a keyword that the model or the loss does not take.
        FloatingPointError: loss, gradients or outputs became infinite or NaN.
    """
    registry.load_plugins(config.plugins)
    check_settings(config)
    folder = RunFolder(config.output)
    resuming = folder.check(config)
    args = _arguments(config, folder)
    is_main = args.process_index == 0

    cases = _read(config, images_checked)
    provenance = _provenance(config, cases, args.world_size)
    if resuming:
        folder.check_provenance(provenance)
    args.distributed_state.wait_for_everyone()

    loss = _loss(config.train, cases)
    set_seed(config.seed)
    processor, model = _processor_and_model(config, cases, needs_aux_heads=loss.needs_auxiliary_heads)
    _check_layout(config.model.name, model, cases)
    if config.train.freeze_encoders:
        model.freeze_encoders()
    if resolve_channels_last(config.train.channels_last):
        model.to(memory_format=torch.channels_last)
    if is_main:
        folder.begin(config, provenance)
        write_split_table(cases, folder.split)
        print(_summary(config, args, model, cases))
    args.distributed_state.wait_for_everyone()
    with args.distributed_state.main_process_first():
        train_rows, val_rows, cache = _rows(config, cases, model, processor)

    entries = {"training": provenance, "card": _card(config)}

    def save_best(record: Record) -> None:
        _save(model, processor, folder.best, entries, record)

    log = EpochLog(
        folder.metrics,
        metric=config.train.metric,
        patience=config.train.patience,
        save_steps=config.train.save_steps,
        lr=config.train.lr,
        on_best=save_best,
    )
    weights = None
    if config.train.sampler == "balanced":
        weights = torch.as_tensor(balanced_sampler(train_rows.labels).weights)
    # a last batch of one row is none for BatchNorm
    leftover = len(train_rows) % config.train.batch_size
    args.dataloader_drop_last = args.world_size == 1 and leftover == 1 < config.train.batch_size
    if val_rows is None:
        args.eval_strategy = IntervalStrategy.NO
    trainer = FusionTrainer(
        model,
        loss,
        args,
        config=config.train,
        collate=train_rows.collate,
        train_rows=train_rows,
        order=EpochOrder(len(train_rows), config.seed, weights),
        val_rows=val_rows,
        figures=lambda labels, logits: _figures(labels, logits, processor.labels),
        log=log,
    )
    _run(trainer, log, folder, config.train)
    return _finish(model, processor, folder, log.history, entries, config, cases, cache, is_main=is_main)


def check_settings(config: RunConfig) -> None:
    """Refuse settings out of range, and names that nothing has, before anything is read.

    Raises:
        ValueError: a setting out of range, or an unknown model, part or loss.
        TypeError: a keyword that the model or the loss does not take.
    """
    t = config.train
    rules: list[tuple[str, Any, bool, str]] = [
        ("epochs", t.epochs, t.epochs >= 1, "at least 1"),
        ("batch_size", t.batch_size, t.batch_size >= 1, "at least 1"),
        ("gradient_accumulation", t.gradient_accumulation, t.gradient_accumulation >= 1, "at least 1"),
        ("lr", t.lr, t.lr > 0, "above 0"),
        ("encoder_lr_scale", t.encoder_lr_scale, t.encoder_lr_scale >= 0, "at least 0"),
        ("weight_decay", t.weight_decay, t.weight_decay >= 0, "at least 0"),
        ("warmup_ratio", t.warmup_ratio, 0 <= t.warmup_ratio <= 1, "between 0 and 1"),
        ("grad_clip", t.grad_clip, t.grad_clip >= 0, "at least 0 (0 clips nothing)"),
        ("sampler", t.sampler, t.sampler in ("shuffle", "balanced"), "shuffle or balanced"),
        ("metric", t.metric, t.metric in METRICS, f"one of {', '.join(METRICS)}"),
        ("patience", t.patience, t.patience is None or t.patience >= 1, "at least 1, or null"),
        ("save_steps", t.save_steps, t.save_steps is None or t.save_steps >= 1, "at least 1, or null"),
        ("workers", t.workers, t.workers >= 0, "at least 0"),
    ]
    if t.feature_cache is not None:
        augments = config.processor.augment != "none"
        rules += [
            ("freeze_encoders", t.freeze_encoders, t.freeze_encoders, "true with train.feature_cache"),
            (
                "feature_views",
                t.feature_views,
                t.feature_views >= 1 if augments else t.feature_views == 0,
                f"{'at least 1' if augments else '0'} with processor.augment {config.processor.augment}",
            ),
        ]
    elif t.feature_views:
        rules.append(("feature_views", t.feature_views, False, "0 without train.feature_cache"))
    for name, value, holds, expected in rules:
        if not holds:
            raise ValueError(f"train.{name} must be {expected}; got {value!r}.")
    taken = registry.keywords(registry.get("loss", t.loss))
    counts = {"class_counts": [1, 1]} if "class_counts" in taken else {}
    loss: Any = create_loss(t.loss, **(counts | t.loss_args))
    if not is_saved(config.model.name):
        with torch.device("meta"):
            create_model(
                config.model.name, num_classes=2, **config.model.overrides(), aux_heads=loss.needs_auxiliary_heads
            )


def _arguments(config: RunConfig, folder: RunFolder) -> TrainingArguments:
    """The Trainer's arguments. Creating them joins the other processes, where torchrun started several."""
    t = config.train
    precision = resolve_precision(t.precision)
    use_cpu = not has_accelerator()
    args = TrainingArguments(
        output_dir=str(folder.states),
        run_name=folder.root.name,
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
        eval_strategy="epoch",
        save_strategy="epoch",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,
        report_to=t.trackers or "none",
        disable_tqdm=True,
        log_level="error",
        log_level_replica="error",
        label_names=["labels"],
        remove_unused_columns=False,
        dataloader_num_workers=t.workers,
        dataloader_pin_memory=not use_cpu,
    )
    # several GPUs are used by several processes (torchrun); one process takes the first
    args._n_gpu = min(args.n_gpu, 1)
    return args


def _read(config: RunConfig, images_checked: bool) -> CaseTable:
    """The sound rows, each in a split.

    Raises:
        ValueError: bad rows, no training rows, one class only, or fewer training rows than a batch.
    """
    cases = read_cases(config.data, config.dataset)
    cases = (cases if images_checked else check_images(cases)).resolve(config.dataset.on_bad_row)
    cases = cases.split_or_draw(config.dataset, config.seed)
    count = cases.splits.get("train", 0)
    if count == 0:
        raise ValueError(f"{cases.source} has no rows of the split 'train'; it has {cases.splits or 'no rows'}.")
    if len(cases.labels) < 2:
        raise ValueError(f"{cases.source}: the training rows have one class only, {cases.labels}; two are needed.")
    if config.train.batch_size > count:
        raise ValueError(f"train.batch_size is {config.train.batch_size}, and there are only {count} training rows.")
    if config.train.patience is not None and "val" not in cases.splits:
        raise ValueError("train.patience needs validation rows, and there are none; set it to null, or add some.")
    return cases


def _check_layout(name: str, model: FusionModel, cases: CaseTable) -> None:
    """Refuse several images a case where the model reads them otherwise. (A single image is a study of one.)"""
    if model.image_layout is not None and cases.layout not in ("image", model.image_layout):
        raise ValueError(
            f"The data have {cases.layout} and {name} reads pixel_values as {model.image_layout}; choose a model of "
            f"{cases.layout} (--model.image_tower {cases.layout}), or read the rows one by one, without "
            "dataset.study_column and dataset.view_columns."
        )


def _provenance(config: RunConfig, cases: CaseTable, processes: int) -> dict[str, Any]:
    """What a reader of the model later wants to know about its making."""
    packages = ("torch", "timm", "transformers", "accelerate")
    return {
        "data_fingerprint": cases.fingerprint(),
        "rows": cases.splits,
        "labels": cases.labels,
        "seed": config.seed,
        "processes": processes,
        "dataset": asdict(config.dataset),
        "loss": {"name": config.train.loss, **config.train.loss_args},
        "versions": {
            "mmfusion": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
    }


def _card(config: RunConfig) -> dict[str, Any]:
    """What the card says, and which weights the run began with: their licence holds for what comes of them."""
    card = asdict(config.card)
    if not is_saved(config.model.name):
        return card
    started = read_config(resolve_artifact(config.model.name))
    about = started.get("card") or {}
    origin = {"model": portable_name(config.model.name), "weights_sha256": started.get("weights_sha256")}
    origin |= {name: about.get(name) for name in ("dataset", "license")}
    return card | {"license": card["license"] or about.get("license"), "started_from": origin}


def _loss(config: TrainConfig, cases: CaseTable) -> Any:
    """The loss; one that takes class counts gets those of the training rows."""
    kwargs = dict(config.loss_args)
    if "class_counts" in registry.keywords(registry.get("loss", config.loss)) and "class_counts" not in kwargs:
        counts = cases.select("train").frame["label"].value_counts()
        kwargs["class_counts"] = [int(counts.get(label, 0)) for label in cases.labels]
    return create_loss(config.loss, **kwargs)


def is_saved(name: str) -> bool:
    """Whether a model's name is that of trained weights (``local-dir:``, ``hf-hub:``, ``arch.tag``)."""
    return ":" in name or "." in name


def _rows(
    config: RunConfig, cases: CaseTable, model: FusionModel, processor: Processor
) -> tuple[Any, Any, FeatureCache | None]:
    """Training rows and validation rows (None without any), as encoded cases or as features of frozen encoders."""
    t, train_cases = config.train, cases.select("train")
    val_cases = cases.select("val") if "val" in cases.splits else None
    augment = None if config.processor.augment == "none" else config.processor.augment
    if t.feature_cache is None:
        train_rows = MultimodalDataset(train_cases, processor, augment=augment, seed=config.seed)
        return train_rows, None if val_cases is None else MultimodalDataset(val_cases, processor), None
    cache = FeatureCache(
        t.feature_cache,
        model,
        processor,
        cases,
        channels_last=resolve_channels_last(t.channels_last),
        workers=t.workers,
    )
    rows = cache.rows(train_cases, augment=augment, views=t.feature_views, seed=config.seed)
    return rows, None if val_cases is None else cache.rows(val_cases), cache


def _processor_and_model(
    config: RunConfig, cases: CaseTable, *, needs_aux_heads: bool
) -> tuple[Processor, FusionModel]:
    """The model, new or saved, and the processor that makes its inputs."""
    labels, overrides = cases.labels, config.model.overrides()
    if is_saved(config.model.name):
        return _from_saved(config, labels, overrides)
    overrides["aux_heads"] = needs_aux_heads
    # without data: what the architecture is made of tells what its inputs are
    with torch.device("meta"):
        plan = create_model(config.model.name, num_classes=len(labels), **overrides)
    tokenizer = None
    if plan.text_tower is not None:
        tokenizer, is_fitted = _tokenizer(config, cases, plan.config["text_encoder"])
        if is_fitted:
            overrides["text_args"] = {**(overrides.get("text_args") or {}), "vocab_size": len(tokenizer)}
    inputs: dict[str, Any] = {}
    if plan.image_tower is not None:
        cfg = plan.pretrained_cfg
        inputs = {name: cfg[name] for name in ("mean", "std", "interpolation", "crop_pct")}
        inputs["image_size"] = config.processor.image_size or cfg["input_size"][-1]
    processor = Processor(
        labels=labels,
        tokenizer=tokenizer,
        text_template=config.dataset.text_template,
        max_length=_max_length(config, plan),
        missing_values=config.dataset.missing_values,
        **inputs,
    )
    model = create_model(
        config.model.name, num_classes=len(labels), encoder_weights=config.model.encoder_weights, **overrides
    )
    known = model.text_tower.config["vocab_size"] if model.text_tower is not None else 0
    if tokenizer is not None and len(tokenizer) > known:
        raise ValueError(
            f"The text encoder knows {known} word pieces, and the tokenizer has {len(tokenizer)}; "
            f"set processor.vocab_size to at most {known}."
        )
    return processor, model


def _max_length(config: RunConfig, model: FusionModel) -> int:
    """The token budget, cut to what the text encoder has positions for."""
    limit = model.text_tower.max_length if model.text_tower is not None else None
    return min(config.processor.max_length, limit or config.processor.max_length)


def _tokenizer(config: RunConfig, cases: CaseTable, text_encoder: str) -> tuple[Any, bool]:
    """The tokenizer that comes with the encoder's weights, or one fitted on the training text (True)."""
    source = weights_source(text_encoder)
    if source is not None and (config.model.encoder_weights is not None or text_encoder not in BUILT_IN):
        return load_tokenizer(source), False
    reader = Processor(text_template=config.dataset.text_template, missing_values=config.dataset.missing_values)
    texts = [reader.text_of(row) or "" for row in cases.select("train").frame.to_dict("records")]
    return fit_wordpiece(texts, config.processor.vocab_size), True


def _from_saved(config: RunConfig, labels: list[str], overrides: dict[str, Any]) -> tuple[Processor, FusionModel]:
    """Go on from a saved model; other class names get a new head."""
    saved = Processor.from_pretrained(resolve_artifact(config.model.name))
    model = create_model(config.model.name, encoder_weights=config.model.encoder_weights, **overrides)
    if saved.labels != labels:
        print(
            f"{config.model.name} knows {', '.join(saved.labels)}; the data have {', '.join(labels)}: the head is new, "
            "with random weights"
        )
        model.reset_classifier(len(labels))
    processor = replace(
        saved,
        labels=labels,
        image_size=config.processor.image_size or saved.image_size,
        text_template=config.dataset.text_template or saved.text_template,
        max_length=_max_length(config, model),
    )
    return processor, model


def _summary(config: RunConfig, args: TrainingArguments, model: FusionModel, cases: CaseTable) -> str:
    """What is about to happen, in one line."""
    parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    rows = ", ".join(f"{count:,} {split}" for split, count in cases.splits.items())
    memory = ", channels_last" if resolve_channels_last(config.train.channels_last) else ""
    processes = f" x {args.world_size} processes" if args.world_size > 1 else ""
    return (
        f"training {config.model.name} ({parameters:,} trainable parameters) on {len(cases.labels)} classes, "
        f"rows: {rows}; {resolve_precision(config.train.precision)}{memory} on {args.device.type}{processes}"
    )


def _figures(labels: NDArray[np.int64], logits: NDArray[np.float32], class_names: Sequence[str]) -> dict[str, float]:
    probabilities = torch.from_numpy(logits).double().softmax(-1).numpy()
    return headline(classification_metrics(labels, probabilities, class_names))


def _run(trainer: FusionTrainer, log: EpochLog, folder: RunFolder, config: TrainConfig) -> None:
    """Train, from the newest complete state where there is one."""
    state = checkpoints.newest_complete(folder.states)
    if state is None:
        trainer.train()
        return
    saved = json.loads((state / "trainer_state.json").read_text(encoding="utf-8"))
    history = restored(saved["stateful_callbacks"])["history"]
    if trainer.is_world_process_zero():
        print(f"going on from {state} ({len(history)} epochs done)")
    if len(history) >= config.epochs or should_stop(history, config.metric, config.patience):
        log.history = history
        trainer._load_from_checkpoint(str(state))
    else:
        trainer.train(resume_from_checkpoint=str(state))


def _save(
    model: FusionModel, processor: Processor, target: Path, entries: dict[str, Any], metrics: dict[str, Any]
) -> None:
    """Write a model folder whole."""
    with replacing(target) as partial:
        predictor = Predictor(model, processor, provenance=entries["training"], card=entries["card"])
        predictor.save_pretrained(partial, metrics)


def _finish(
    model: FusionModel,
    processor: Processor,
    folder: RunFolder,
    history: list[Record],
    entries: dict[str, Any],
    config: RunConfig,
    cases: CaseTable,
    cache: FeatureCache | None,
    *,
    is_main: bool,
) -> TrainResult:
    """Save the last weights, and measure the best ones on rows that chose nothing, where there are such."""
    position = best_of(history, config.train.metric)
    assert position is not None
    best = history[position]
    val = {name: best[name] for name in METRICS if name in best}
    split = next((name for name in ("test", "val") if name in cases.splits), None)
    measured: dict[str, Any] | None = None
    if is_main:
        _save(model, processor, folder.last, entries, history[-1])
        channels_last = resolve_channels_last(config.train.channels_last)
        best_model = load_model(folder.best).to(next(model.parameters()).device)
        predictor = Predictor(best_model, processor, channels_last=channels_last)
        plot_training_curves(folder.metrics, folder.root / "training_curves.png")
        inference: dict[str, Any] = {
            "batch_size": config.train.batch_size,
            "workers": config.train.workers,
            "open_rows": cache.rows if cache is not None else None,
        }
        if "val" in cases.splits:
            calibrate(predictor, cases.select("val"), **inference)
        if split is not None:
            on_bad_row = config.dataset.on_bad_row
            found = measure(predictor, cases.select(split), output=folder.root, on_bad_row=on_bad_row, **inference)
            measured = found.to_dict()
            figures = {**measured, "split": split, "epoch": best["epoch"], "val": val}
            _save(best_model, processor, folder.best, entries, figures)
            shown = ", ".join(f"{name} {figure}" for name, figure in found.intervals.figures.items())
            print(f"{split}: {shown}")
        fitted = predictor.calibration
        temperature = f", temperature {fitted['temperature']:.3f} from {fitted['n']:,} val rows" if fitted else ""
        print(f"best epoch {best['epoch']} of {len(history)}{temperature}; saved in {folder.best}")
    return TrainResult(
        folder=folder.root,
        best=folder.best,
        last=folder.last,
        best_epoch=best["epoch"],
        val=val,
        test=measured if split == "test" else None,
        history=history,
    )
