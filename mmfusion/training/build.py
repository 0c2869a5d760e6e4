"""From a run's settings and its rows to the model that is trained, with its processor, and the loss."""

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

#: table tower where columns are read and none is named.
TABLE_ENCODER = "table_mlp"


def columns_of(config: RunConfig, cases: CaseTable) -> ChosenColumns:
    """The columns that the model reads: those of a saved model, else those that the data set's options choose.

    Raises:
        ValueError: columns that may not be inputs, or that are not there.
    """
    if not is_saved(config.model.name):
        return choose_columns(cases, config.dataset, config.privacy.min_patients)
    table = _saved_columns(config.model.name)
    return ChosenColumns() if table is None else ChosenColumns(table, column_words(table.to_dict()))


def _saved_columns(name: str) -> TableColumns | None:
    """The columns that a saved model reads."""
    settings = (read_config(resolve_artifact(name)).get("processor") or {}).get("table")
    return TableColumns.from_dict(settings) if settings is not None else None


def with_saved_columns(config: RunConfig) -> RunConfig:
    """The run with the columns of the saved model that it begins with, which the table must have.

    Raises:
        ValueError: other columns are asked for.
    """
    dataset, name = config.dataset, config.model.name
    if not is_saved(name):
        return config
    table = _saved_columns(name)
    known = table.names if table is not None else []
    asked = dataset.named_columns or (["auto"] if dataset.reads_columns and table is None else [])
    if others := sorted(set(asked) - set(known)):
        reads = f"reads {', '.join(known)}" if known else "reads no columns"
        raise ValueError(f"{name} {reads}, not {', '.join(others)}; train a new model for other columns.")
    return replace(config, dataset=with_column_names(dataset, table))


def with_task(config: RunConfig) -> RunConfig:
    """The run with what its task decides where nothing else is said: loss and metric; a saved model has its own task.

    Raises:
        ValueError: there is no such task, or the saved model that the run begins with has another.
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
    """The run with the parts that its rows ask for and its settings leave open, and what is to be told of them.

    Columns are read by a table tower; a text tower that no training row feeds is left out.

    Raises:
        ValueError: the model reads columns, and none are chosen.
    """
    model = config.model
    told: list[str] = []
    if is_saved(model.name):
        return config, told
    parts = resolve_config(model.name, **model.overrides())
    if table is None and parts.get("table_encoder") is not None:
        how = "choose them with --dataset.table_columns auto"
        raise ValueError(f"{model.name} reads the columns of a table by {parts['table_encoder']}; {how}.")
    if table is not None and parts.get("table_encoder") is None:
        model = replace(model, table_encoder=TABLE_ENCODER)
        told.append(f"the columns are read by {TABLE_ENCODER} (model.table_encoder)")
    if may_leave_text_out(config) and not any(_texts(config, cases)):
        model = replace(model, text_encoder="none")
        told.append("no training row has a text: the text encoder is left out (model.text_encoder none)")
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
    """The model to train, new or saved, and the processor that makes its inputs.

    Class names and the fitted tokenizer come from the training rows, and so do the ``table`` columns. ``aux_heads``
    tells that the loss needs auxiliary heads; ``weights`` says which towers of a new model start from published
    weights; ``provenance`` and ``card`` are the entries ``training`` and ``card`` of the saved model.

    Raises:
        ValueError: parts or settings that do not go together, or a model that reads other images than the data have.
        FileNotFoundError: there are no such weights.
    """
    saved = is_saved(config.model.name)
    model, processor = _from_saved(config, cases) if saved else _new(config, cases, aux_heads, table, weights)
    # one image is a study too
    if (cases.layout == "bags") != (model.image_layout == "bags") and model.image_layout is not None:
        has = "bags of features" if cases.layout == "bags" else "no bags of features (dataset.bag_column)"
        raise ValueError(
            f"The data have {has}, and {config.model.name} reads {model.image_layout}; a model of bags has "
            "--model.image_encoder features."
        )
    if model.image_layout is not None and cases.layout not in ("image", model.image_layout):
        raise ValueError(
            f"The data have {cases.layout} and {config.model.name} reads pixel_values as {model.image_layout}; choose "
            f"a model of {cases.layout} (--model.image_tower {cases.layout}), or read the rows one by one, without "
            "dataset.study_column and dataset.view_columns."
        )
    freeze(model, config.train)
    channels_last = resolve_channels_last(config.train.channels_last)
    return Predictor(model, processor, provenance=provenance, card=card, channels_last=channels_last)


def freeze(model: FusionModel, config: TrainConfig) -> None:
    """Freeze what a run leaves as it is, and put adapters beside it where it is told to."""
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
    """An architecture; its vocabulary is that of the tokenizer, which is made first."""
    name, overrides = config.model.name, {**config.model.overrides(), **task_keywords(config), "aux_heads": aux_heads}
    if table is not None:
        overrides["table_args"] = {**(overrides.get("table_args") or {}), **table.table_args()}
    encoder = resolve_config(name, **overrides)["text_encoder"]
    tokenizer = None
    if encoder is not None and weights_source(encoder) is not None and (weights["text"] or encoder not in BUILT_IN):
        tokenizer = load_tokenizer(str(weights_source(encoder)))  # the one that comes with the encoder's weights
    elif encoder is not None:
        tokenizer = _fitted_tokenizer(config, cases)
        overrides["text_args"] = {**(overrides.get("text_args") or {}), "vocab_size": len(tokenizer)}
    if resolve_config(name, **overrides)["image_encoder"] == FEATURES:
        overrides["image_args"] = {"dim": _width_of_bags(config, cases), **(overrides.get("image_args") or {})}
    model = create_model(name, num_classes=len(cases.labels), encoder_weights=weights, **overrides)
    known = model.text_tower.config["vocab_size"] if model.text_tower is not None else 0
    if tokenizer is not None and len(tokenizer) > known:
        counts = f"The text encoder knows {known} word pieces, and the tokenizer has {len(tokenizer)}"
        raise ValueError(f"{counts}; set processor.vocab_size to at most {known}.")
    inputs: dict[str, Any] = {}
    if model.image_layout == "bags":
        inputs["bag_dim"] = model.image_tower.dim
    elif model.image_tower is not None:
        cfg = model.pretrained_cfg
        inputs = {name: cfg[name] for name in ("mean", "std", "interpolation", "crop_pct") if name in cfg}
        inputs["crop_mode"] = config.processor.crop_mode or "center"
        if inputs["crop_mode"] == "border":
            inputs["crop_pct"] = 1.0
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
    """Width of the vectors of the first bag, which is that of all."""
    if cases.layout != "bags":
        raise ValueError(
            f"{config.model.name} with image_encoder 'features' reads bags, and the data have no bags of features; "
            "name their column with --dataset.bag_column."
        )
    return next((bag_width(cases.image_root / bag) for bag in cases.frame["image"].dropna()), None)


def _from_saved(config: RunConfig, cases: CaseTable) -> tuple[FusionModel, Processor]:
    """A saved model to train further; other class names get a new head."""
    folder, labels = resolve_artifact(config.model.name), cases.labels
    saved = Processor.from_pretrained(folder)
    model = create_model(folder, encoder_weights=config.model.encoder_weights, **config.model.overrides())
    if saved.labels != labels:
        differ = f"{config.model.name} knows {', '.join(saved.labels)}; the data have {', '.join(labels)}"
        print(f"{differ}: the head is new, with random weights")
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
    """What the task keeps of the training rows."""
    return cases.question.fitted(cases.select("train").frame["label"].tolist())


def task_keywords(config: RunConfig) -> dict[str, Any]:
    """``task`` and ``task_args`` of a new model: the form of the outputs is that of the loss."""
    task = task_named(config.dataset.task)
    if task.name == DEFAULT:
        return {}
    form = getattr(registry.get("loss", config.train.loss), "form", None) or task.form
    return {"task": task.name} | ({"task_args": {"form": form}} if form != task.form else {})


def _max_length(config: RunConfig, model: FusionModel) -> int:
    """The token budget, cut to what the text encoder has positions for."""
    limit = model.text_tower.max_length if model.text_tower is not None else None
    return min(config.processor.max_length, limit or config.processor.max_length)


def _fitted_tokenizer(config: RunConfig, cases: CaseTable) -> PreTrainedTokenizerFast:
    groups, least = cases.select("train").frame["group"].tolist(), config.privacy.min_patients
    return fit_wordpiece(list(_texts(config, cases)), config.processor.vocab_size, groups=groups, min_groups=least)


def _texts(config: RunConfig, cases: CaseTable) -> Iterator[str]:
    """Texts of the training rows; a row without one has an empty text."""
    reader = Processor(text_template=config.dataset.text_template, missing_values=config.dataset.missing_values)
    frame, named = cases.select("train").frame, {"text", *template_fields(config.dataset.text_template or "")}
    return (reader.text_of(row) or "" for row in frame.filter(named).to_dict("records"))


def build_loss(config: TrainConfig, task: Task, counts: Mapping[str, Sequence[int]]) -> Any:
    """The loss; one that takes some of the ``counts`` by name gets these, unless ``loss_args`` has them.

    Raises:
        ValueError: unknown loss, one that does not serve the task, or a value out of range.
        TypeError: a keyword that the loss does not take.
    """
    kind = registry.get("loss", config.loss)
    serves = getattr(kind, "tasks", (DEFAULT,))
    if task.name not in serves:
        losses = {name: registry.get("loss", name) for name in registry.names("loss")}
        known = [name for name, each in losses.items() if task.name in getattr(each, "tasks", (DEFAULT,))]
        told = f"loss {config.loss!r} serves the task {' and '.join(serves)}, not {task.name}"
        raise ValueError(f"{told}; train.loss is one of {', '.join(known)}.")
    offered = {name: list(each) for name, each in counts.items() if name in registry.keywords(kind)}
    return create_loss(config.loss, **(offered | config.loss_args))


def label_counts(cases: CaseTable) -> dict[str, list[int]]:
    """Training rows of each label, in the order of the labels, as losses take them.

    ``class_counts`` are the rows that have it, ``other_counts`` those that are known not to; empty where labels are no
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
    """Whether a loss reads ``image_logits`` and ``text_logits``; a plain module of a user's own need not say so."""
    return bool(getattr(loss, "needs_auxiliary_heads", False))
