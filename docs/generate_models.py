"""Write ``docs/models.md``, the page of every registered model and part.

Parameters are counted on the meta device: no weight is allocated.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import torch

import mmfusion
from mmfusion import registry

NUM_CLASSES = 7
PAGE = Path(__file__).with_name("models.md")
TITLES = {
    "fusion": "Fusion blocks",
    "head": "Heads",
    "aggregator": "Aggregators",
    "image_tower": "Image towers",
    "text_tower": "Text towers",
    "loss": "Losses",
}


def summary(part: object) -> str:
    """First paragraph of a docstring, in one line that a table cell can hold."""
    first = (inspect.getdoc(part) or "").split("\n\n")[0]
    return " ".join(first.split()).replace("``", "`").replace("|", "\\|")


def models() -> list[str]:
    """Table of the models."""
    lines = [
        "| model | image encoder | text encoder | fusion | head | parameters | what it is |",
        "|---|---|---|---|---|--:|---|",
    ]
    for name in mmfusion.list_models():
        with torch.device("meta"):
            model = mmfusion.create_model(name, num_classes=NUM_CLASSES)
        count = sum(parameter.numel() for parameter in model.parameters())
        parts = [model.config.get(part) for part in ("image_encoder", "text_encoder", "fusion", "head")]
        cells = " | ".join(f"`{part}`" if part else "" for part in parts)
        lines.append(f"| `{name}` | {cells} | {count / 1e6:.1f} M | {summary(registry.get('model', name))} |")
    return lines


def components(kind: str) -> list[str]:
    """Table of the parts of a kind."""
    lines = ["| name | keywords | what it is |", "|---|---|---|"]
    for name in mmfusion.list_components(kind):
        part = registry.get(kind, name)
        keywords = ", ".join(f"`{keyword}`" for keyword in registry.keywords(part))
        lines.append(f"| `{name}` | {keywords} | {summary(part)} |")
    return lines


def page() -> str:
    """The whole page."""
    lines = [
        "# Models and parts",
        "",
        "Made from the registry by `make docs`; do not edit. "
        f"Parameters are counted for {NUM_CLASSES} classes. Any part can be swapped by name: "
        '`create_model("mibf_resnet50", fusion="gated")`.',
        "",
        "## Models",
        "",
        *models(),
    ]
    for kind, title in TITLES.items():
        if mmfusion.list_components(kind):
            lines += ["", f"## {title}", "", *components(kind)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
    print(f"wrote {PAGE}")
