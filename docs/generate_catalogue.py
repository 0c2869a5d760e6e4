"""Generate from the registry: ``docs/models.md``, the tables of ``README.md``, the stubs of the part packages.

A part is described by the first paragraph of its docstring. Parameters are counted on the meta device, without
allocating weights.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import torch

import mmfusion
from mmfusion import lazy, registry
from mmfusion.artifacts.shipped import Weights, shipped
from mmfusion.models.factory import resolve_config
from mmfusion.results import Evaluation

ROOT = Path(mmfusion.__file__).parents[1]
NUM_CLASSES = 7
#: columns for counting the parameters of table models.
COLUMNS = {"numeric": 5, "categories": [4] * 5}
TITLES = {
    "fusion": "Fusion blocks",
    "head": "Heads",
    "aggregator": "Aggregators",
    "tower": "Towers",
    "image_tower": "Image towers",
    "text_tower": "Text towers",
    "table_tower": "Table towers",
    "task": "Tasks",
    "loss": "Losses",
    "augmentation": "Augmentations",
    "retriever": "Retrievers",
    "metric": "Metrics",
}
#: metrics in the table of weights -> heading.
METRICS = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_auroc": "macro AUROC", "ece": "ECE"}
#: packages that export the classes of their modules.
PART_PACKAGES = ("aggregators", "fusion", "heads", "losses", "towers")


def summary(part: object) -> str:
    """First paragraph of a docstring as one line of a table cell; for a metric, its ``meaning``."""
    first = (getattr(part, "meaning", None) or inspect.getdoc(part) or "").split("\n\n")[0]
    plain = re.sub(r":\w+:`~?(?:\w+\.)*(\w+)`", r"`\1`", " ".join(first.split()))
    return plain.replace("``", "`").replace("|", "\\|")


def models() -> list[str]:
    """Table of the models."""
    lines = [
        "| model | image encoder | text encoder | table encoder | fusion | head | parameters | what it is |",
        "|---|---|---|---|---|---|--:|---|",
    ]
    for name in mmfusion.list_models():
        columns = {"table_args": COLUMNS} if resolve_config(name)["table_encoder"] is not None else {}
        with torch.device("meta"):
            model = mmfusion.create_model(name, num_classes=NUM_CLASSES, **columns)
        count = sum(parameter.numel() for parameter in model.parameters())
        named = ("image_encoder", "text_encoder", "table_encoder", "fusion", "head")
        parts = [model.config.get(part) for part in named]
        cells = " | ".join(f"`{part}`" if part else "" for part in parts)
        lines.append(f"| `{name}` | {cells} | {count / 1e6:.1f} M | {summary(registry.get('model', name))} |")
    return lines


def weights() -> list[str]:
    """Table of the trained weights in the mmfusion wheel."""
    lines = [
        "| weights | measured on | " + " | ".join(METRICS.values()) + " | MB | rows/s | license |",
        "|---|---|" + "---|" * len(METRICS) + "--:|--:|---|",
    ]
    for name in own_weights():
        found = Evaluation.from_dict(name.metrics)
        pooled = f", {found.pooled.folds} folds pooled" if found.pooled else ""
        figures = " | ".join(str(found.intervals.figures.get(metric, "")) for metric in METRICS)
        speed = name.metrics.get("speed") or {}
        rate = f"{speed['rows_per_second']:g} ({speed['machine']})" if speed else ""
        where = f"{name.dataset} {found.split}, {found.n:,} rows{pooled}"
        lines.append(f"| `{name}` | {where} | {figures} | {name.size / 1e6:.1f} | {rate} | {name.terms} |")
    return lines


def research_only() -> list[str]:
    """One line on the terms of the weights."""
    bound = ", ".join(f"`{name}`" for name in own_weights() if "research only" in name.terms)
    return wrap(f"For research only, by the license of their training data: {bound}.") if bound else []


def wrap(text: str) -> list[str]:
    """Prose in lines of at most 100 characters."""
    return textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)


def own_weights() -> list[Weights]:
    """Weights in the mmfusion wheel, not those of other wheels on this machine."""
    return [each for each in shipped() if each.package == "mmfusion"]


def components(kind: str) -> list[str]:
    """Table of the parts of a kind, with the keywords they take."""
    lines = ["| name | keywords | what it is |", "|---|---|---|"]
    for name in mmfusion.list_components(kind):
        part = registry.get(kind, name)
        keywords = ", ".join(f"`{keyword}`" for keyword in registry.keywords(part)) if callable(part) else ""
        lines.append(f"| `{name}` | {keywords} | {summary(part)} |")
    return lines


def short(kind: str) -> list[str]:
    """Table of the parts of a kind, with their classes."""
    rows = ((name, registry.get(kind, name)) for name in mmfusion.list_components(kind))
    lines = [f"| `{name}` | `{part.__name__}` | {summary(part)} |" for name, part in rows]
    return ["| name | class | what it is |", "|---|---|---|", *lines]


def page() -> str:
    """``docs/models.md``."""
    lines = [
        "# Models and parts",
        "",
        *wrap(
            "Generated from the registry by `make docs`; do not edit. "
            f"Parameters are counted for {NUM_CLASSES} classes; table models for 5 numeric columns and 5 "
            "of 4 categories. Any part can be swapped by name: "
            '`create_model("mibf_resnet50", fusion="gated")`.'
        ),
        "",
        "## Models",
        "",
        *models(),
        "",
        "## Trained weights",
        "",
        *wrap(
            "Load with `create_model(name)` or `Predictor.from_pretrained(name)`. In brackets: 95 % intervals by group."
        ),
        "",
        *weights(),
        "",
        *research_only(),
    ]
    for kind, title in TITLES.items():
        if mmfusion.list_components(kind):
            lines += ["", f"## {title}", "", *components(kind)]
    return "\n".join(lines) + "\n"


def readme() -> str:
    """``README.md`` with new tables of weights and parts, each between two markers."""

    made = {"weights": weights, "terms": research_only}

    def table(block: re.Match[str]) -> str:
        lines = made[block["kind"]]() if block["kind"] in made else short(block["kind"])
        return "\n".join([block["begin"], *lines, block["end"]])

    blocks = re.compile(r"(?P<begin><!-- (?P<kind>\w+): by make docs -->).*?(?P<end><!-- end -->)", re.DOTALL)
    return blocks.sub(table, (ROOT / "README.md").read_text(encoding="utf-8"))


def stub(package: str) -> str:
    """``__init__.pyi`` of a part package: its public names, for type checkers."""
    docstring = inspect.getdoc(getattr(mmfusion, package))

    def order(name: str) -> tuple[str, bool, bool, str]:
        return homes[name], not name.isupper(), not name[0].isupper(), name

    homes = lazy.public(f"mmfusion.{package}", parts=True)
    lines = [f"from {homes[name]} import {name} as {name}" for name in sorted(homes, key=order)]
    return "\n".join([f'"""{docstring}"""', "", "# made by `make docs`; do not edit", *lines, ""])


def files() -> Iterator[tuple[Path, str]]:
    """Every generated file with its content."""
    for package in PART_PACKAGES:
        yield ROOT / "mmfusion" / package / "__init__.pyi", stub(package)
    yield ROOT / "README.md", readme()
    yield ROOT / "docs" / "models.md", page()


if __name__ == "__main__":
    for path, text in files():
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
