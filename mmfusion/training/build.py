"""Builds the model, processor and loss of a run from its settings and rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mmfusion import registry
from mmfusion.artifacts.card import column_words
from mmfusion.artifacts.folder import is_saved, read_config, resolve_artifact
from mmfusion.data import CaseTable, Processor
from mmfusion.data.bags import bag_width
from mmfusion.data.table_columns import TableColumns
from mmfusion.hardware import resolve_channels_last
from mmfusion.inference.predictor import Predictor
from mmfusion.models import FusionModel, create_loss, create_model
from mmfusion.models.factory import resolve_config
from mmfusion.models.fitting import set_columns
from mmfusion.task import DEFAULT, Task, task_named
from mmfusion.text.template import template_fields
from mmfusion.text.tokenizer import fit_wordpiece, load_tokenizer
from mmfusion.towers.bags import FEATURES
from mmfusion.towers.text import BUILT_IN, weights_source
from mmfusion.training.columns import ChosenColumns, choose_columns, with_column_names
from mmfusion.training.config import RunConfig, TrainConfig
from mmfusion.training.contents import may_leave_text_out
from mmfusion.training.lora import add_adapters

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Default table tower if columns are used.
TABLE_ENCODER = "table_mlp"


def columns_of(config: RunConfig, cases: CaseTable) -> ChosenColumns:
    """The input columns: those of a saved model, else those selected by the data set's options.

    Raises:
        ValueError: A column does not exist or is not suitable as an input.
    """
    if not is_saved(config.model.name):
        return choose_columns(cases, config.dataset, config.privacy.min_patients)
    table = _saved_columns(config.model.name)
    return ChosenColumns() if table is None else ChosenColumns(table, column_words(table.to_dict()))


def _saved_columns(name: str) -> TableColumns | None:
    """The input columns of a saved model."""
    settings = (read_config(resolve_artifact(name)).get("processor") or {}).get("table")
    return TableColumns.from_dict(settings) if settings is not None else None


def with_saved_columns(config: RunConfig) -> RunConfig:
    """The run with the columns of the saved model that it starts from, which the table must have.

    Raises:
        ValueError: Other columns are requested.
    """
    dataset, name = config.dataset, config.model.name
    if not is_saved(name):
        return config
    table = _saved_columns(name)
    known = table.names if table is not None else []
    asked = dataset.named_columns or (["auto"] if dataset.reads_columns and table is None else [])
    if others := sorted(set(asked) - set(known)):
        reads = f"uses {', '.join(known)}" if known else "uses no columns"
        raise ValueError(f"{name} {reads}, not {', '.join(others)}; train a new model for other columns.")
    return replace(config, dataset=with_column_names(dataset, table))


def with_task(config: RunConfig) -> RunConfig:
    """The run with the task's default loss and metric; a saved model has its own task.

    Raises:
        ValueError: The task does not exist, or the saved model that the run starts from has another.
    """
    dataset, train, name = config.dataset, config.train, config.model.name
    if is_saved(name):
        known = read_config(resolve_artifact(name))["model"].get("task", DEFAULT)
        if config.model.task is not None and config.model.task != known:
            raise ValueError(f"{name} has the task {known!r}, not {config.model.task!r}; train a new model for that.")
        dataset = replace(dataset, task=known)
    task = task_named(dataset.task)
    own = {"loss": task.forms[task.form], "metric": task.metric}
    settled: dict[str, Any] = {name: value for name, value in own.items() if getattr(train, name) == "auto"}
    return replace(config, dataset=dataset, train=replace(train, **settled))


def with_parts(config: RunConfig, cases: CaseTable, table: TableColumns | None) -> tuple[RunConfig, list[str]]:
    """The run with parts that the rows require and the settings leave open, and log lines about them.

    A table tower is added for columns; the text tower is dropped if no training row has a text.

    Raises:
        ValueError: The model uses columns, but none are selected.
    """
    model = config.model
    told: list[str] = []
    if is_saved(model.name):
        return config, told
    parts = resolve_config(model.name, **model.overrides())
    if table is None and parts.get("table_encoder") is not None:
        how = "select them with --dataset.table_columns auto"
        raise ValueError(f"{model.name} uses table columns ({parts['table_encoder']}); {how}.")
    if table is not None and parts.get("table_encoder") is None:
        model = replace(model, table_encoder=TABLE_ENCODER)
        told.append(f"the columns are encoded by {TABLE_ENCODER} (model.table_encoder)")
    if may_leave_text_out(config) and not any(_texts(config, cases)):
        model = replace(model, text_encoder="none")
        told.append("no training row has a text: the text encoder is dropped (model.text_encoder none)")
    return replace(config, model=model), told


def build_predictor(
    config: RunConfig,
    cases: CaseTable,
    *,
    aux_heads: bool,
    table: TableColumns | None,
    weights: dict[str, str | None],
    provenance: dict[str, Any],
    card: dict[str, Any],
) -> Predictor:
    """Build the model to train, new or saved, and its processor.

    Class names, the fitted tokenizer and the ``table`` columns come from the training rows. ``aux_heads`` is whether
    the loss needs auxiliary heads, ``weights`` which towers of a new model start from published weights;
    ``provenance`` and ``card`` become the entries ``training`` and ``card`` of the saved model.

    Raises:
        ValueError: Parts or settings are incompatible, or the model does not match the image layout of the data.
        FileNotFoundError: The weights do not exist.
    """
    saved = is_saved(config.model.name)
    model, processor = _from_saved(config, cases) if saved else _new(config, cases, aux_heads, table, weights)
    # a single image is a study too
    if (cases.layout == "bags") != (model.image_layout == "bags") and model.image_layout is not None:
        has = "bags of features" if cases.layout == "bags" else "no bags of features (dataset.bag_column)"
        raise ValueError(
            f"The data have {has}, but {config.model.name} expects {model.image_layout}; for bags use "
            "--model.image_encoder features."
        )
    if model.image_layout is not None and cases.layout not in ("image", model.image_layout):
        raise ValueError(
            f"The data have {cases.layout}, but {config.model.name} expects pixel_values as {model.image_layout}; use "
            f"a model for {cases.layout} (--model.image_tower {cases.layout}), or single rows, without "
            "dataset.study_column and dataset.view_columns."
        )
    freeze(model, config.train)
    channels_last = resolve_channels_last(config.train.channels_last)
    return Predictor(model, processor, provenance=provenance, card=card, channels_last=channels_last)


def freeze(model: FusionModel, config: TrainConfig) -> None:
    """Freeze parts of the model and add adapters, as configured."""
    if config.freeze_encoders:
        model.freeze_encoders()
    if config.encoder_tuning == "lora":
        add_adapters(model, config.lora)
    if config.freeze_stages is not None:
        model.freeze_stages(config.freeze_stages)
    if config.freeze_norm:
        model.freeze_norm()


def _new(
    config: RunConfig, cases: CaseTable, aux_heads: bool, table: TableColumns | None, weights: dict[str, str | None]
) -> tuple[FusionModel, Processor]:
    """Build an architecture; its vocabulary is that of the tokenizer, which is built first."""
    name, overrides = config.model.name, {**config.model.overrides(), **task_keywords(config), "aux_heads": aux_heads}
    if table is not None:
        overrides["table_args"] = {**(overrides.get("table_args") or {}), **table.table_args()}
    encoder = resolve_config(name, **overrides)["text_encoder"]
    tokenizer = None
    if encoder is not None and weights_source(encoder) is not None and (weights["text"] or encoder not in BUILT_IN):
        tokenizer = load_tokenizer(str(weights_source(encoder)))  # the one published with the encoder's weights
    elif encoder is not None:
        tokenizer = _fitted_tokenizer(config, cases)
        overrides["text_args"] = {**(overrides.get("text_args") or {}), "vocab_size": len(tokenizer)}
    if resolve_config(name, **overrides)["image_encoder"] == FEATURES:
        overrides["image_args"] = {"dim": _width_of_bags(config, cases), **(overrides.get("image_args") or {})}
    model = create_model(name, num_classes=len(cases.labels), encoder_weights=weights, **overrides)
    known = model.text_tower.config["vocab_size"] if model.text_tower is not None else 0
    if tokenizer is not None and len(tokenizer) > known:
        counts = f"The text encoder has {known} word pieces, but the tokenizer has {len(tokenizer)}"
        raise ValueError(f"{counts}; set processor.vocab_size to at most {known}.")
    inputs: dict[str, Any] = {}
    if model.image_layout == "bags":
        inputs["bag_dim"] = model.image_tower.dim
    elif model.image_tower is not None:
        cfg = model.pretrained_cfg
        inputs = {name: cfg[name] for name in ("mean", "std", "interpolation", "crop_pct") if name in cfg}
        inputs["crop_mode"] = config.processor.crop_mode or "center"
        inputs["image_size"] = config.processor.image_size or cfg.get("input_size", (3, 224, 224))[-1]  # timm's default
    processor = Processor(
        labels=cases.labels,
        tokenizer=tokenizer,
        text_template=config.dataset.text_template,
        max_length=_max_length(config, model),
        table=table,
        missing_values=config.dataset.missing_values,
        window=config.processor.window or "auto",
        slice=config.dataset.slice,
        slices=config.dataset.slices,
        task=config.dataset.task,
        targets=_targets(cases),
        **inputs,
    )
    set_columns(model, processor)
    return model, processor


def _width_of_bags(config: RunConfig, cases: CaseTable) -> int | None:
    """Width of the first bag, which is that of all."""
    if cases.layout != "bags":
        raise ValueError(
            f"{config.model.name} with image_encoder 'features' needs bags, but the data have no bags of features; "
            "set their column with --dataset.bag_column."
        )
    return next((bag_width(cases.image_root / bag) for bag in cases.frame["image"].dropna()), None)


def _from_saved(config: RunConfig, cases: CaseTable) -> tuple[FusionModel, Processor]:
    """Load a saved model to train further; if the class names differ, it gets a new head."""
    folder, labels = resolve_artifact(config.model.name), cases.labels
    saved = Processor.from_pretrained(folder)
    model = create_model(folder, encoder_weights=config.model.encoder_weights, **config.model.overrides())
    if saved.labels != labels:
        differ = f"{config.model.name} has the classes {', '.join(saved.labels)}; the data have {', '.join(labels)}"
        print(f"{differ}: using a new head with random weights")
        model.reset_classifier(len(labels))
    processor = replace(
        saved,
        labels=labels,
        image_size=config.processor.image_size or saved.image_size,
        text_template=config.dataset.text_template or saved.text_template,
        window=config.processor.window or saved.window,
        crop_mode=config.processor.crop_mode or saved.crop_mode,
        slice=config.dataset.slice,
        slices=config.dataset.slices,
        max_length=_max_length(config, model),
        targets=_targets(cases),
    )
    return model, processor


def _targets(cases: CaseTable) -> dict[str, Any] | None:
    """Statistics of the training labels that the task keeps."""
    return cases.question.fitted(cases.select("train").frame["label"].tolist())


def task_keywords(config: RunConfig) -> dict[str, Any]:
    """``task`` and ``task_args`` of a new model; the loss decides the form of the outputs."""
    task = task_named(config.dataset.task)
    if task.name == DEFAULT:
        return {}
    form = getattr(registry.get("loss", config.train.loss), "form", None) or task.form
    return {"task": task.name} | ({"task_args": {"form": form}} if form != task.form else {})


def _max_length(config: RunConfig, model: FusionModel) -> int:
    """The token budget, limited to the positions of the text encoder."""
    limit = model.text_tower.max_length if model.text_tower is not None else None
    return min(config.processor.max_length, limit or config.processor.max_length)


def _fitted_tokenizer(config: RunConfig, cases: CaseTable) -> PreTrainedTokenizerFast:
    groups, least = cases.select("train").frame["group"].tolist(), config.privacy.min_patients
    return fit_wordpiece(list(_texts(config, cases)), config.processor.vocab_size, groups=groups, min_groups=least)


def _texts(config: RunConfig, cases: CaseTable) -> Iterator[str]:
    """Texts of the training rows; empty for a row without one."""
    reader = Processor(text_template=config.dataset.text_template, missing_values=config.dataset.missing_values)
    frame, named = cases.select("train").frame, {"text", *template_fields(config.dataset.text_template or "")}
    return (reader.text_of(row) or "" for row in frame.filter(named).to_dict("records"))


def build_loss(config: TrainConfig, task: Task, counts: Mapping[str, Sequence[int]]) -> Any:
    """Build the loss; it receives those ``counts`` that it has parameters for, unless ``loss_args`` has them.

    Raises:
        ValueError: The loss is unknown, does not support the task, or a value is out of range.
        TypeError: The loss has no such keyword.
    """
    kind = registry.get("loss", config.loss)
    serves = getattr(kind, "tasks", (DEFAULT,))
    if task.name not in serves:
        losses = {name: registry.get("loss", name) for name in registry.names("loss")}
        known = [name for name, each in losses.items() if task.name in getattr(each, "tasks", (DEFAULT,))]
        told = f"loss {config.loss!r} supports the task {' and '.join(serves)}, not {task.name}"
        raise ValueError(f"{told}; train.loss must be one of {', '.join(known)}.")
    offered = {name: list(each) for name, each in counts.items() if name in registry.keywords(kind)}
    return create_loss(config.loss, **(offered | config.loss_args))


def label_counts(cases: CaseTable) -> dict[str, list[int]]:
    """Training rows per label, in the order of the labels, as arguments of losses.

    ``class_counts`` are the rows with the label, ``other_counts`` those known not to have it; empty if labels are not
    classes.
    """
    task = task_named(cases.task, cases.labels)
    labels = task.encoded(cases.select("train").frame["label"].tolist())
    positives, others = task.positives(labels), task.negatives(labels)
    return {
        "class_counts": [int(rows.sum()) for rows in positives.values()],
        "other_counts": [int(rows.sum()) for rows in others.values()],
    }


def needs_aux_heads(loss: Any) -> bool:
    """Whether a loss reads ``image_logits`` and ``text_logits``; False for modules that do not say so."""
    return bool(getattr(loss, "needs_auxiliary_heads", False))
