"""The model card: what a saved model is, in words, for whoever finds its folder."""

from __future__ import annotations

from typing import Any

#: cards without this line were written by someone else, and are left alone.
MARK = "<!-- written by mmfusion; remove this line to keep your own text -->"

HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")


def model_card(config: dict[str, Any], metrics: dict[str, Any] | None) -> str:
    """Markdown with architecture, classes, figures, intended use, limits and how to load it.

    Args:
        config: the content of ``config.json``.
        metrics: the content of ``metrics.json``, if there is any.
    """
    model, training = config["model"], config.get("training") or {}
    parts = [f"{part}: `{model[part]}`" for part in ("image_encoder", "text_encoder", "fusion", "head") if model[part]]
    labels = (config.get("processor") or {}).get("labels") or training.get("labels") or []
    rows = ", ".join(f"{count:,} {split}" for split, count in (training.get("rows") or {}).items())
    classes = f"{model['num_classes']} ({', '.join(labels)})" if labels else str(model["num_classes"])
    # the ingredients of a soup need not share rows or seed
    data = f", data fingerprint `{training['data_fingerprint'][:16]}`" if training.get("data_fingerprint") else ""
    seed = f", seed {training['seed']}" if "seed" in training else ""
    facts = [
        f"Architecture: `{config.get('architecture') or 'custom'}` ({', '.join(parts)})",
        f"Classes: {classes}",
        *([f"Trained on: {rows} rows{data}"] if rows else []),
        *([f"Loss: `{training['loss']['name']}`{seed}"] if training.get("loss") else []),
    ]
    if soup := training.get("soup"):
        mixed = ", ".join(f"`{each['model']}`" for each in soup["ingredients"])
        facts.append(f"Weights: {soup['method']} mean of {mixed}; BatchNorm statistics: {soup['batch_norm']}")
    if fitted := config.get("calibration"):
        facts.append(
            f"Calibrated: temperature {fitted['temperature']:.3f}, from {fitted['n']:,} {fitted['fitted_on']} rows"
        )
    listed = "\n".join(f"- {fact}" for fact in facts)
    return f"""---
library_name: mmfusion
tags: [mmfusion, multimodal, medical]
---
{MARK}

# {config.get("architecture") or "mmfusion model"}

{listed}

## Figures

{_figures(metrics)}

## Intended use and limits

For research. This is not a medical device, and no decision about a patient may rest on it. The figures hold for data
like those it was measured on; other scanners, clinics and populations need their own evaluation. Where a modality is
missing, the model predicts from the other one, with less certainty than it may show.

## Loading

```python
import mmfusion

predictor = mmfusion.Predictor.from_pretrained("local-dir:FOLDER")  # this folder
predictor.predict([{{"image": "a.jpg", "text": "..."}}])
```
"""


def _figures(metrics: dict[str, Any] | None) -> str:
    known = {name: (metrics or {}).get(name) for name in HEADLINE}
    rows = [
        f"| {name.replace('_', ' ')} | {value:.4f}{_interval(metrics, name)} |"
        for name, value in known.items()
        if value is not None
    ]
    if not rows:
        return "None were saved with this model."
    where = f"On `{metrics['split']}`" if metrics and metrics.get("split") else "On validation rows"
    count = f", {metrics['n']:,} rows" if metrics and metrics.get("n") else ""
    return "\n".join([f"{where}{count}:", "", "| figure | value |", "|---|---|", *rows])


def _interval(metrics: dict[str, Any] | None, name: str) -> str:
    ends = ((metrics or {}).get("intervals") or {}).get(name)
    return f" [{ends['low']:.4f}, {ends['high']:.4f}]" if ends and ends["low"] is not None else ""
