"""Model card of a saved model, for its folder or its page on the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.markdown import table
from mmfusion.results import Evaluation, calibration_words
from mmfusion.task import DEFAULT, task_named
from mmfusion.text.template import template_fields

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

#: Cards without this line were written by someone else and are not overwritten.
MARK = "<!-- written by mmfusion; remove this line to keep your own text -->"

TEMPLATE = Path(__file__).with_name("card.md.jinja")

#: Maximum number of classes of a confusion matrix on the card; larger ones are only in metrics.json.
WIDEST_MATRIX = 20

#: ``processor.table`` of a model without columns.
NO_COLUMNS: Mapping[str, Any] = {"numeric": [], "categorical": []}

#: Pipeline tag of the Hub.
TAGS = ("mmfusion", "multimodal", "medical")


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any] | None, name: str = "local-dir:FOLDER") -> str:
    """Markdown with architecture, classes, data, license, metrics, confusion matrix, intended use, limits and loading.

    Args:
        config: Contents of ``config.json``. Its entry ``card`` has facts from the author: ``dataset``, ``license``,
            ``intended_use`` and ``limits``, each optional; and ``let_through``, findings in the texts accepted with a
            forced push or export.
        metrics: Contents of ``metrics.json``, or None.
        name: Name for loading the model.
    """
    from huggingface_hub import ModelCard

    model, training = config["model"], config.get("training") or {}
    title, evaluation = config.get("architecture") or "mmfusion model", Evaluation.from_dict(metrics or {})
    card = ModelCard.from_template(
        _head(config, evaluation, title),
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        mark=MARK,
        title=title,
        name=name,
        noun=task_named(model.get("task", DEFAULT)).noun,
        config=config,
        model=model,
        parts=[p for p in ("image_encoder", "text_encoder", "table_encoder", "fusion", "head") if model.get(p)],
        columns=column_words((config.get("processor") or {}).get("table") or NO_COLUMNS, most=100),
        labels=(config.get("processor") or {}).get("labels") or training.get("labels") or [],
        card=config.get("card") or {},
        calibration=calibration_words(config["calibration"]) if config.get("calibration") else None,
        text=_text(config),
        training=training,
        evaluation=evaluation,
        confusion=_confusion(evaluation),
        row=json.dumps(_row(config)),
    )
    return f"{card}\n"


def column_words(table: Mapping[str, Any], most: int = 6) -> dict[str, str]:
    """Description of each column of a model: type, and values or range in training.

    Args:
        table: Entry ``processor.table`` of ``config.json``.
        most: Maximum number of category values listed.
    """
    words = {c["name"]: f"number, {c['low']:g} to {c['high']:g} in training" for c in table["numeric"]}
    for column in table["categorical"]:
        known = column["values"]
        named = ", ".join(known[:most]) + (", ..." if len(known) > most else "")
        count = f"category, {len(known)} value{'' if len(known) == 1 else 's'}"
        words[column["name"]] = f"{count}: {named}" if known else count
    return words


def _head(config: Mapping[str, Any], evaluation: Evaluation, title: str) -> ModelCardData:
    """YAML header of the card for the Hub."""
    from huggingface_hub import EvalResult, ModelCardData

    card = config.get("card") or {}
    task = "image-classification" if config["model"]["image_encoder"] else "text-classification"
    fields: dict[str, Any] = {"library_name": "mmfusion", "pipeline_tag": task, "tags": list(TAGS)}
    if card.get("license"):
        fields["license"] = card["license"]
    if (dataset := card.get("dataset")) and (shown := evaluation.shown()):
        of: dict[str, Any] = {"task_type": task, "dataset_type": dataset.lower(), "dataset_name": dataset}
        of["dataset_split"] = evaluation.split
        results = [EvalResult(**of, metric_type=name, metric_value=round(value, 4)) for name, value in shown.items()]
        fields |= {"model_name": title, "eval_results": results}
    return ModelCardData(**fields)


def _confusion(evaluation: Evaluation) -> str:
    names = evaluation.classes
    if not evaluation.confusion_matrix or not names or len(names) > WIDEST_MATRIX:
        return ""
    rows = [(f"**{name}**", *map(str, row)) for name, row in zip(names, evaluation.confusion_matrix, strict=True)]
    return table(("", *names), rows)


def _text(config: Mapping[str, Any]) -> list[str]:
    """Description of the text input; empty without one."""
    processor, vocabulary = config.get("processor") or {}, config.get("vocabulary")
    if not config["model"]["text_encoder"] or not processor:
        return []
    found = ["free text"]
    if template := processor.get("text_template"):
        columns = ", ".join(f"`{name}`" for name in template_fields(template))
        found = [f"`{template}`, from the columns {columns}, then free text"]
    found.append(f"up to {processor['max_length']:,} tokens; the rest is truncated")
    if vocabulary:
        known = f"{vocabulary['pieces']:,} word pieces"
        if vocabulary["words"] is not None:
            known += (
                f", {vocabulary['words']:,} of them whole words; others are split into pieces down to single characters"
            )
        found.append(known)
        found.append("each digit is a token" if vocabulary["digits"] else "numbers are words, which may be unknown")
    return found


def _row(config: Mapping[str, Any]) -> dict[str, Any]:
    """Example row in the format of the training data."""
    model, template = config["model"], (config.get("processor") or {}).get("text_template")
    row: dict[str, Any] = {}
    if model["image_encoder"]:
        several = {"images": ["1.png", "2.png"]}
        kinds: dict[str, dict[str, Any]] = {"slices": several, "views": several, "bags": {"bag": "1.h5"}}
        row |= kinds.get(model["image_tower"], {"image": "a.jpg"})
    if model["text_encoder"]:
        row |= dict.fromkeys(template_fields(template), "...") if template else {"text": "..."}
    table = (config.get("processor") or {}).get("table") or NO_COLUMNS
    row |= {column["name"]: round(column["mean"]) for column in table["numeric"]}
    row |= {column["name"]: next(iter(column["values"]), "...") for column in table["categorical"]}
    return row
