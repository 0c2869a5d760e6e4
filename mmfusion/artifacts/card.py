"""The model card: what a saved model is, in words, for whoever finds its folder or its page on the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mmfusion.text.template import template_fields

#: cards without this line were written by someone else, and are left alone.
MARK = "<!-- written by mmfusion; remove this line to keep your own text -->"

HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")

#: with more classes than this, the confusion matrix is in metrics.json alone.
WIDEST_MATRIX = 20

#: of the Hub: what the library does.
TAGS = ("mmfusion", "multimodal", "medical")

INTENDED_USE = "For research."
LIMITS = (
    "This is not a medical device, and no decision about a patient may rest on it. The figures hold for data like "
    "those it was measured on; other scanners, clinics and populations need their own evaluation. Where a modality is "
    "missing, the model predicts from the other one, with less certainty than it may show."
)


def model_card(config: Mapping[str, Any], metrics: Mapping[str, Any] | None, name: str = "local-dir:FOLDER") -> str:
    """Markdown with architecture, classes, data, licence, figures, confusion matrix, intended use, limits and loading.

    Args:
        config: the content of ``config.json``. Its entry ``card`` holds what nobody but the author knows: ``dataset``,
            ``license``, ``intended_use`` and ``limits``, each None or left out where unknown.
        metrics: the content of ``metrics.json``, if there is any.
        name: what the model is loaded by.
    """
    card, metrics = config.get("card") or {}, metrics or {}
    title = config.get("architecture") or "mmfusion model"
    sections = {
        "Figures": _figures(metrics),
        "Confusion matrix": _confusion(metrics),
        "Intended use": " ".join(filter(None, [card.get("intended_use"), INTENDED_USE])),
        "Limits": " ".join(filter(None, [card.get("limits"), LIMITS])),
        "Loading": _loading(config, name),
    }
    body = "\n\n".join(f"## {heading}\n\n{text}" for heading, text in sections.items() if text)
    return f"---\n{_metadata(config, metrics, title)}\n---\n{MARK}\n\n# {title}\n\n{_facts(config)}\n\n{body}\n"


def _metadata(config: Mapping[str, Any], metrics: Mapping[str, Any], title: str) -> str:
    """The page's YAML head, as the Hub reads it."""
    from huggingface_hub import EvalResult, ModelCardData

    card, model = config.get("card") or {}, config["model"]
    task = "image-classification" if model["image_encoder"] else "text-classification"
    dataset = card.get("dataset")
    results = [
        EvalResult(
            task_type=task,
            dataset_type=dataset.lower(),
            dataset_name=dataset,
            dataset_split=metrics.get("split"),
            metric_type=name,
            metric_value=round(metrics[name], 4),
        )
        for name in HEADLINE
        if dataset and metrics.get(name) is not None
    ]
    fields: dict[str, Any] = {"library_name": "mmfusion", "pipeline_tag": task, "tags": list(TAGS)}
    if card.get("license"):
        fields["license"] = card["license"]
    if results:
        fields |= {"model_name": title, "eval_results": results}
    return ModelCardData(**fields).to_yaml().strip()


def _facts(config: Mapping[str, Any]) -> str:
    model, training, card = config["model"], config.get("training") or {}, config.get("card") or {}
    parts = [f"{part}: `{model[part]}`" for part in ("image_encoder", "text_encoder", "fusion", "head") if model[part]]
    labels = (config.get("processor") or {}).get("labels") or training.get("labels") or []
    rows = ", ".join(f"{count:,} {split}" for split, count in (training.get("rows") or {}).items())
    classes = f"{model['num_classes']} ({', '.join(labels)})" if labels else str(model["num_classes"])
    # the ingredients of a soup need not share rows or seed
    data = f", data fingerprint `{training['data_fingerprint'][:16]}`" if training.get("data_fingerprint") else ""
    seed = f", seed {training['seed']}" if "seed" in training else ""
    versions = ", ".join(f"{name} {number}" for name, number in (training.get("versions") or {}).items())
    facts = [
        f"Architecture: `{config.get('architecture') or 'custom'}` ({', '.join(parts)})",
        f"Classes: {classes}",
        *([f"Data set: {card['dataset']}"] if card.get("dataset") else []),
        *([f"Licence of the weights: {card['license']}"] if card.get("license") else []),
        *([f"Started from: {_origin(card['started_from'])}"] if card.get("started_from") else []),
        *([f"Trained on: {rows} rows{data}"] if rows else []),
        *([f"Loss: `{training['loss']['name']}`{seed}"] if training.get("loss") else []),
        *([f"Made with: {versions}"] if versions else []),
    ]
    if soup := training.get("soup"):
        mixed = ", ".join(f"`{each['model']}`" for each in soup["ingredients"])
        facts.append(f"Weights: {soup['method']} mean of {mixed}; BatchNorm statistics: {soup['batch_norm']}")
    if fitted := config.get("calibration"):
        facts.append(
            f"Calibrated: temperature {fitted['temperature']:.3f}, from {fitted['n']:,} {fitted['fitted_on']} rows"
        )
    return "\n".join(f"- {fact}" for fact in facts)


def _origin(started: Mapping[str, Any]) -> str:
    """The weights that a run began with: name, data set, licence."""
    about = ", ".join(filter(None, (started.get("dataset"), started.get("license"))))
    return f"`{started['model']}`{f' ({about})' if about else ''}"


def _figures(metrics: Mapping[str, Any]) -> str:
    rows = [
        f"| {name.replace('_', ' ')} | {metrics[name]:.4f}{_interval(metrics, name)} |"
        for name in HEADLINE
        if metrics.get(name) is not None
    ]
    if not rows:
        return "None were saved with this model."
    where = f"On `{metrics['split']}`" if metrics.get("split") else "On validation rows"
    count = f", {metrics['n']:,} rows" if metrics.get("n") else ""
    drawn = metrics.get("bootstrap")
    how = f"; in brackets {drawn['level']:.0%} bootstrap intervals over {drawn['groups']:,} groups" if drawn else ""
    table = "\n".join([f"{where}{count}{how}:", "", "| figure | value |", "|---|---|", *rows])
    classes = metrics.get("per_class")
    if not classes:
        return table
    lines = [
        f"| {name} | {each['support']:,} | {each['recall']:.3f} | {each['precision']:.3f} | {_three(each['auroc'])} |"
        for name, each in classes.items()
    ]
    head = ["| class | rows | recall | precision | AUROC |", "|---|---|---|---|---|"]
    return "\n".join([table, "", *head, *lines])


def _three(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _interval(metrics: Mapping[str, Any], name: str) -> str:
    ends = (metrics.get("intervals") or {}).get(name)
    return f" [{ends['low']:.4f}, {ends['high']:.4f}]" if ends and ends["low"] is not None else ""


def _confusion(metrics: Mapping[str, Any]) -> str:
    matrix, names = metrics.get("confusion_matrix"), metrics.get("classes")
    if not matrix or not names or len(names) > WIDEST_MATRIX:
        return ""
    return "\n".join(
        [
            "Rows are true classes, columns predicted ones.",
            "",
            f"| | {' | '.join(names)} |",
            f"|---|{'---|' * len(names)}",
            *(f"| **{name}** | {' | '.join(map(str, row))} |" for name, row in zip(names, matrix, strict=True)),
        ]
    )


def _loading(config: Mapping[str, Any], name: str) -> str:
    """Code that loads the model and predicts a row of the kind that it was trained on."""
    model, template = config["model"], (config.get("processor") or {}).get("text_template")
    row: dict[str, Any] = {}
    if model["image_encoder"]:
        several = model["image_tower"] in ("slices", "views")
        row |= {"images": ["1.png", "2.png"]} if several else {"image": "a.jpg"}
    if model["text_encoder"]:
        row |= dict.fromkeys(template_fields(template), "...") if template else {"text": "..."}
    return "\n".join(
        [
            "```python",
            "import mmfusion",
            "",
            f'predictor = mmfusion.Predictor.from_pretrained("{name}")',
            f"predictor.predict([{json.dumps(row)}])",
            "```",
        ]
    )
