"""Match model and processor: vocabulary, columns and classes."""

import os
from collections.abc import Mapping
from typing import Any

from mmfusion.models.parts import weights_of
from mmfusion.task import task_of
from mmfusion.towers.bags import FEATURES
from mmfusion.towers.text import BUILT_IN, hub_id


def fitted(config: Mapping[str, Any], overrides: Mapping[str, Any], processor: Any) -> dict[str, Any]:
    """Complete the overrides of ``create_model`` from a processor; explicit overrides take precedence.

    A built-in text encoder without pretrained weights gets the tokenizer's vocabulary, and a table tower the columns.

    Args:
        config: All keywords of the model, without the processor.
        overrides: Keywords given by the caller.
        processor: The :class:`mmfusion.data.Processor` that prepares the model's inputs.
    """
    overrides, found = dict(overrides), {}
    encoder = config["text_encoder"]
    pretrained = weights_of(config["encoder_weights"], "text") is not None and encoder in BUILT_IN
    own_vocabulary = encoder in BUILT_IN and not (pretrained and hub_id(encoder) is not None)
    if own_vocabulary and processor.tokenizer is not None and "config" not in (overrides.get("text_args") or {}):
        found["text_args"] = {"vocab_size": len(processor.tokenizer)}
    if processor.table is not None and config.get("table_encoder") is not None:
        found["table_args"] = processor.table.table_args()
    if processor.bag_dim is not None and config["image_encoder"] == FEATURES:
        found["image_args"] = {"dim": processor.bag_dim}
    return overrides | {name: {**args, **(overrides.get(name) or {})} for name, args in found.items()}


def set_columns(model: Any, processor: Any) -> None:
    """Set the means, scales and bins of the processor's columns in the table tower of a new model."""
    if "table" in model.towers and processor.table is not None:
        model.towers["table"].set_statistics(*processor.table.statistics())


def image_cfg(settings: Mapping[str, Any]) -> dict[str, Any]:
    """How a processor makes images, with timm's names; empty if it makes none.

    Args:
        settings: Its ``to_dict()``.
    """
    if (size := settings.get("image_size")) is None:
        return {}
    cfg = {"input_size": (3, size, size), "crop_mode": "center"}
    names = [name for name in ("mean", "std", "interpolation", "crop_pct", "crop_mode") if name in settings]
    return cfg | {name: tuple(value) if isinstance(value := settings[name], list) else value for name in names}


def describe_inputs(model: Any, processor: Any) -> None:
    """Make ``pretrained_cfg`` of a model tell how its processor makes images; TypeError for a name."""
    if isinstance(model, str | os.PathLike):
        raise TypeError(f"Predictor takes a model; Predictor.from_pretrained({model!r}) loads a saved model.")
    if hasattr(model, "preprocessing"):
        model.preprocessing = (model.preprocessing or {}) | image_cfg(processor.to_dict())


def check_task(model: Any, processor: Any) -> None:
    """Raise ValueError unless model and processor have the same task."""
    own = task_of(model).name
    if processor.task != own:
        raise ValueError(f"The model has the task {own!r}, but the processor {processor.task!r}; use the same task.")


def check_answers(model: Any, processor: Any, where: object) -> None:
    """Raise ValueError if a saved model and its processor differ in task or number of labels.

    Args:
        model: The model.
        processor: Its processor.
        where: Folder of both, for the message.
    """
    check_task(model, processor)
    if len(processor.labels) != model.num_classes:
        counts = f"the model has {model.num_classes} classes, the processor {len(processor.labels)} labels"
        raise ValueError(f"{where}: {counts}; save both again, together.")


def check_fit(model: Any, processor: Any) -> None:
    """Check that a processor's inputs and class names match the model.

    Raises:
        ValueError: The processor prepares no inputs for a tower, its tokenizer has word pieces outside the text
            encoder's vocabulary, or the numbers of columns or of classes differ.
    """
    if hasattr(model, "check_processor"):  # an exported model, which has inputs and no towers
        model.check_processor(processor)
        return
    tower, tokenizer = model.text_tower, processor.tokenizer
    if tower is not None and tokenizer is None:
        raise ValueError("The model reads text, but the processor has no tokenizer; give it one (mmfusion.data).")
    if "pixel_values" in getattr(model.image_tower, "inputs", ()) and processor.image_size is None:
        raise ValueError("The model reads images, but the processor has no image_size; give it one.")
    if tower is not None and tokenizer is not None:
        check_vocabulary(tokenizer, getattr(tower, "vocab_size", 1 << 62))
    if model.image_layout == "bags" and model.image_tower.dim != processor.bag_dim:
        widths = f"The model reads vectors of width {model.image_tower.dim}, the processor returns {processor.bag_dim}"
        raise ValueError(f"{widths}; set bag_dim.")
    _check_columns(model, processor.table)
    check_task(model, processor)
    if processor.labels and model.num_classes not in (0, len(processor.labels)):
        names = ", ".join(processor.labels)
        counts = f"The model has {model.num_classes} classes, but the processor {len(processor.labels)}"
        raise ValueError(f"{counts}: {names}.")


def check_vocabulary(tokenizer: Any, known: int) -> None:
    """Raise ValueError if a tokenizer has more word pieces than the text encoder."""
    pieces = max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=0))
    if pieces > known:
        how = "create_model(..., processor=processor) builds a matching model"
        raise ValueError(f"The tokenizer has {pieces} word pieces, but the model's text encoder {known}; {how}.")


def _check_columns(model: Any, table: Any) -> None:
    if "table" not in model.towers:
        return
    if table is None:
        raise ValueError("The model reads columns, but the processor has none; give it table=TableColumns.fit(...).")
    args, own = model.config.get("table_args") or {}, table.table_args()
    counts = [(each.get("numeric", 0), len(each.get("categories") or [])) for each in (args, own)]
    if counts[0] != counts[1]:
        (numeric, categorical), (given, others) = counts
        raise ValueError(
            f"The model reads {numeric} numeric and {categorical} categorical columns, but the processor has {given} "
            f"and {others}; create_model(..., processor=processor) builds a matching model."
        )
