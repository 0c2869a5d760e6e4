"""What a model or a part is made of: what ``mmfusion info`` shows."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from mmfusion import registry
from mmfusion.cli.config import InfoConfig, Text
from mmfusion.models import (
    FusionModel,
    create_model,
    list_models,
    load_model,
    read_config,
    resolve_artifact,
)
from mmfusion.names import did_you_mean
from mmfusion.results import Evaluation

#: Values that say nothing.
EMPTY: tuple[Any, ...] = (None, {}, [])


def info(config: InfoConfig) -> Text:
    """Describe an architecture, a part of any kind, or a saved model.

    Raises:
        ValueError: Unknown name; the message gives the nearest ones.
    """
    return Text(_described(config.name))


def _described(name: str) -> str:
    if ":" in name or "." in name:
        return _saved(name)
    if name in list_models():
        model = create_model(name)
        summary, size = _summary(registry.get("model", name)), model.pretrained_cfg.get("input_size")
        return _rows(_model_rows(name, model, summary, size))
    kinds = [kind for kind in registry.KINDS if name in registry.names(kind)]
    if not kinds:
        known = [known for kind in registry.KINDS for known in registry.names(kind)]
        raise ValueError(f"There is no model or part {name!r}; {did_you_mean(name, known)}")
    return "\n\n".join(_part(kind, name) for kind in kinds)


def _saved(name: str) -> str:
    folder = resolve_artifact(name)
    stored = read_config(folder)
    shown = ("model", "architecture", "input_size", "mean", "std")
    rows = [
        *_model_rows(
            name, load_model(folder), f"saved model, architecture {stored['architecture']}", stored.get("input_size")
        ),
        *_entries({key: value for key, value in stored.items() if key not in shown}),
    ]
    path = folder / "metrics.json"
    if path.is_file():
        found = Evaluation.from_dict(json.loads(path.read_text(encoding="utf-8")))
        rows += _entries({"metrics": ({"n": found.n} if found.n else {}) | found.figures})
    return _rows(rows)


def _model_rows(name: str, model: FusionModel, summary: str, size: Sequence[int] | None) -> list[tuple[str, str]]:
    parts = [(part, sum(p.numel() for p in module.parameters())) for part, module in model.named_children()]
    return [
        (name, summary),
        ("parameters", f"{sum(count for _, count in parts):,}"),
        *((f"  {part}", f"{count:,}") for part, count in parts if count),
        *([("input_size", " x ".join(map(str, size)))] if size else []),
        ("num_features", str(model.num_features)),
        *_entries(model.config),
    ]


def _part(kind: str, name: str) -> str:
    part = registry.get(kind, name)
    rows = [(name, f"{kind}: {_summary(part)}")]
    for parameter in inspect.signature(part).parameters.values():
        default = "required" if parameter.default is parameter.empty else repr(parameter.default)
        if parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            rows.append((f"  {parameter.name}", default))
    return _rows(rows)


def _summary(part: Any) -> str:
    return (inspect.getdoc(part) or "").partition("\n")[0]


def _entries(values: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    """Keys and values line by line, nested ones indented; empty ones are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield indent + key, ""
            yield from _entries(value, indent + "  ")
        elif value not in EMPTY:
            yield indent + key, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key:{width}}  {value}".rstrip() for key, value in rows)
