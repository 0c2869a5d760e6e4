"""Checks of a saved model's ``config.json`` before the model is built: types, sizes, contradictions."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmfusion.artifacts.integrity import refuse_edit
from mmfusion.decisions import Decisions
from mmfusion.names import clip
from mmfusion.untrusted import asks_for_code, is_outside, keys_of, numbers_of, paths_outside

_NUMBER = (int, float)

#: Entry -> its type; all may be null or missing.
_ENTRIES: Mapping[str, Any] = {
    **dict.fromkeys(("processor", "training", "card", "calibration", "vocabulary", "encoders", "plugins"), dict),
    **dict.fromkeys(("decisions", "familiarity"), dict),
    **dict.fromkeys(("label_names", "input_size", "mean", "std"), list),
    **{"architecture": str, "weights_sha256": str},
}
_MODEL: Mapping[str, Any] = {
    **dict.fromkeys(("image_encoder", "image_tower", "stem", "aggregator", "text_encoder", "text_tower"), str),
    **dict.fromkeys(("table_encoder", "fusion", "head", "task"), str),
    **dict.fromkeys(("image_args", "aggregator_args", "text_args", "table_args", "fusion_args", "head_args"), dict),
    "task_args": dict,
    **{"num_classes": int, "dim": int, "aux_hidden": int, "aux_heads": bool, "modality_dropout": _NUMBER},
    "towers": dict,
}
_PROCESSOR: Mapping[str, Any] = {
    **dict.fromkeys(("labels", "mean", "std", "missing_values"), list),
    **dict.fromkeys(("image_size", "max_length", "bag_dim"), int),
    **{"interpolation": str, "text_template": str, "tokenizer": bool, "table": dict, "crop_pct": _NUMBER},
    **{"task": str, "targets": dict, "crop_mode": str},
}
#: Entries of ``training`` that are read; the types of ``training.dataset`` are :data:`_DATASET`.
_TRAINING: Mapping[str, Any] = {
    **dict.fromkeys(("dataset", "rows", "loss", "versions", "towers"), dict),
    "labels": list,
}
_DATASET: Mapping[str, Any] = {
    **dict.fromkeys(("image_column", "label_column", "text_column", "study_column", "slice_column"), str),
    **dict.fromkeys(("view_column", "bag_column", "task"), str),
    **dict.fromkeys(("label_map", "header_columns"), dict),
    **dict.fromkeys(("label_columns", "missing_values", "numeric_columns", "categorical_columns"), list),
    **dict.fromkeys(("views", "view_columns", "roi_columns", "grades"), list),
    "max_slices": int,
}
_CARD: Mapping[str, Any] = {**dict.fromkeys(("dataset", "license", "intended_use", "limits"), str), "let_through": list}

_EXPORT: Mapping[str, Any] = {
    **dict.fromkeys(("format", "file", "sha256", "image_layout"), str),
    **dict.fromkeys(("inputs", "outputs"), list),
}

#: Last part of a number's name -> maximum.
_MOST = (
    (("num_classes",), 100_000),
    (("num_layers", "num_hidden_layers", "n_layer", "n_layers", "layers", "depth", "depths"), 512),
    (("image_size", "img_size", "input_size"), 4096),
    (("vocab_size",), 4_000_000),
    (("max_length",), 1_000_000),
    (("dim", "hidden_size", "intermediate_size", "hidden_dim", "embed_dim", "aux_hidden", "bag_dim", "width"), 65_536),
)
#: Maximum of any other number.
_MOST_OF_ALL = 1e9
#: Maximum length of a template, far above that of all class names together.
_LONGEST_TEMPLATE = 10_000


def check_config(path: Path, config: Mapping[str, Any]) -> None:
    """Check a configuration with current names.

    Raises:
        ValueError: An entry has a wrong type, a number is out of range, a path leaves the folder, an entry could fetch
            code, or two entries contradict each other; the message names file and entry.
    """
    for fault in _faults(config):
        raise ValueError(f"{path}: {clip(fault, 300)}; save the model again.")
    _check_model(path, config["model"])
    _check_decisions(path, config)
    export = config.get("export")
    if "export" in config and not (isinstance(export, dict) and all(map(export.get, ("format", "file", "sha256")))):
        raise ValueError(f"{path}: its entry 'export' lacks format, file or sha256; export the model again.")
    for part in ("model", "export"):
        for name, value in paths_outside(config.get(part), part):
            how = "which is not allowed; save the model again, or use a file in the folder."
            raise ValueError(f"{path}: {clip(name)} is {clip(repr(value))}, a path outside its folder, {how}")
    for what in _contradictions(config):
        refuse_edit(f"{path}: {what}")


def _faults(config: Mapping[str, Any]) -> Iterator[str]:
    """Entries with another type or size than the library writes."""
    processor, training = config.get("processor") or {}, config.get("training") or {}
    yield from _wrong_types("", config, _ENTRIES)
    yield from _wrong_types("model.", config["model"], _MODEL)
    yield from _wrong_types("processor.", processor, _PROCESSOR)
    yield from _wrong_types("training.", training, _TRAINING)
    yield from _wrong_types("training.dataset.", training.get("dataset") or {}, _DATASET)
    yield from _wrong_types("card.", config.get("card") or {}, _CARD)
    export = config.get("export")
    if isinstance(export, dict):
        yield from _wrong_types("export.", export, _EXPORT)
    for name, texts in _lists_of_texts(config):
        if not all(isinstance(text, str) for text in texts):
            yield f"{name} has values that are not texts"
    for part in ("model", "processor", "input_size", "mean", "std"):
        for name, number in numbers_of(config.get(part), part):
            last = name.rpartition(".")[2]
            limit = next((limit for names, limit in _MOST if last in names), None)
            least, most = (-_MOST_OF_ALL, _MOST_OF_ALL) if limit is None else (0.0, float(limit))
            if not least <= number <= most:  # also true for NaN
                yield f"{name} is {clip(repr(number))}, expected {least:,.0f} to {most:,.0f}"
    if len(processor.get("text_template") or "") > _LONGEST_TEMPLATE:
        yield f"processor.text_template is longer than {_LONGEST_TEMPLATE:,} characters"


def _wrong_types(prefix: str, values: Any, types: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(values, Mapping):
        return
    for name, kind in types.items():
        value = values.get(name)
        if value is not None and (not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool)):
            wanted = {dict: "an object", list: "a list", str: "a text", int: "a whole number", bool: "true or false"}
            yield f"{prefix}{name} is {clip(repr(value))}, not {wanted.get(kind, 'a number')}"


def _lists_of_texts(config: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for part, names in (("processor", ("labels", "missing_values")), ("training", ("labels",))):
        values = config.get(part) or {}
        yield from ((f"{part}.{name}", values[name]) for name in names if values.get(name))
    dataset = (config.get("training") or {}).get("dataset") or {}
    for name, kind in _DATASET.items():
        if kind is list and dataset.get(name):
            yield f"training.dataset.{name}", dataset[name]
        if kind is dict and dataset.get(name):
            yield f"training.dataset.{name}", [*dataset[name].values()]
    if isinstance(export := config.get("export"), dict):
        yield from ((f"export.{name}", export.get(name) or []) for name in ("inputs", "outputs"))
    yield "label_names", config.get("label_names") or []


def _contradictions(config: Mapping[str, Any]) -> Iterator[str]:
    """Redundant entries that differ."""
    processor, training = config.get("processor") or {}, config.get("training") or {}
    labels: Any = processor.get("labels")
    size = processor.get("image_size")
    told = {"label_names": config.get("label_names"), "training.labels": training.get("labels")}
    for name, others in told.items() if labels else ():
        if others and list(others) != list(labels):
            yield f"processor.labels {clip(repr(labels))} and {name} {clip(repr(others))} contradict each other"
    if size and config.get("label_names"):  # older files without it have the sizes of the backbone
        shown = {"input_size": [3, size, size], "mean": processor.get("mean"), "std": processor.get("std")}
        for name, value in shown.items():
            if (other := config.get(name)) is not None and value is not None and list(other) != list(value):
                yield f"{name} {clip(repr(other))} and the processor's {clip(repr(value))} contradict each other"


def _check_decisions(path: Path, config: Mapping[str, Any]) -> None:
    """Settings chosen on validation rows: the calibration, and test-time augmentation."""
    calibration = config.get("calibration")
    fitted = calibration if isinstance(calibration, dict) else {}
    chosen: Any = fitted.get("temperature", fitted.get("quantiles")) if {"fitted_on", "n"} <= fitted.keys() else None
    one_each = isinstance(chosen, list) and "task" in config["model"] and len(chosen) == config["model"]["num_classes"]
    each = chosen if one_each else [chosen]
    if calibration is not None and not all(_is_number(number) and 1e-6 < number < 1e6 for number in each):
        shown = clip(repr(calibration))
        raise ValueError(
            f"{path}: calibration {shown} is not a temperature above 0 with fitted_on and n; remove the entry."
        )
    if strength := fitted.get("prior_strength"):
        prior: Any = fitted.get("log_prior")
        classes = config["model"].get("num_classes")
        numbers: list[Any] = [strength, *prior] if isinstance(prior, list) and len(prior) == classes else [None]
        if not all(_is_number(number) and abs(number) < 1e6 for number in numbers):
            what = f"prior_strength and log_prior must be a number and {classes}, one per class"
            raise ValueError(
                f"{path}: {what}; got {clip(repr(strength))} and {clip(repr(prior))}; save the model again."
            )
    try:
        Decisions.from_dict(config.get("decisions"), config.get("label_names") or [])
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(config.get("tta", False), bool):
        raise ValueError(f"{path}: tta must be true or false, got {clip(repr(config['tta']))}; save the model again.")


def _is_number(value: Any) -> bool:
    return isinstance(value, _NUMBER) and not isinstance(value, bool)


def _check_model(path: Path, model: Mapping[str, Any]) -> None:
    """A saved model contains its weights and tower configurations; none of its entries may load them elsewhere."""
    if model.get("encoder_weights") is not None:
        raise ValueError(f"{path} has encoder_weights, but a saved model contains its weights. Save it again.")
    if model.get("text_encoder") is not None and not (model.get("text_args") or {}).get("config"):
        what = "the configuration of its text encoder (text_args.config)"
        raise ValueError(f"{path} lacks {what}; save the model again.")
    encoder = model.get("image_encoder") or ""
    if "/" in encoder and not is_outside(encoder) and not (model.get("image_args") or {}).get("config"):
        what = "the configuration of its image encoder (image_args.config)"
        raise ValueError(f"{path} lacks {what}; save the model again.")
    for args in ("image_args", "text_args"):
        for name in keys_of(model.get(args)):
            if asks_for_code(name):
                raise ValueError(
                    f"{path}: {args}.config has {clip(repr(name))}, which could fetch code; remove the entry."
                )
