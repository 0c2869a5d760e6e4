"""Names of models and parts (``mmfusion list``), and their descriptions (``mmfusion info``)."""

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from mmfusion import registry
from mmfusion.artifacts.card import column_words
from mmfusion.artifacts.locating import folder_of, model_in
from mmfusion.artifacts.shipped import shipped
from mmfusion.cli.config import InfoConfig, ListConfig, Text
from mmfusion.files import read_json
from mmfusion.models import FusionModel, create_model, list_models, load_model, read_config, resolve_artifact
from mmfusion.models.factory import resolve_config
from mmfusion.names import did_you_mean
from mmfusion.results import Evaluation


def list_names(config: ListConfig) -> Text:
    """List models or parts.

    Raises:
        ValueError: No name matches the pattern, or ``pretrained`` is combined with another kind than ``model``.
    """
    if config.kind != "model" and config.pretrained:
        raise ValueError(f"--pretrained lists models; it cannot be combined with --kind {config.kind}.")
    known = list_models(pretrained=config.pretrained) if config.kind == "model" else registry.names(config.kind)
    found = [name for name in known if registry.matches(name, config.pattern)]
    if not known:
        print(f"This version has no {'trained weights' if config.pretrained else config.kind}.", file=sys.stderr)
    elif not found:
        if config.pattern.rstrip("s") in registry.KINDS:
            kind = config.pattern.rstrip("s")
            raise ValueError(f"{kind!r} is a kind; mmfusion list --kind {kind} lists its parts.")
        raise ValueError(f"No {config.kind} matches {config.pattern!r}; {did_you_mean(config.pattern, known)}")
    return Text("\n".join("  ".join([name, *cast(Any, name).facts()]) if config.pretrained else name for name in found))


def info(config: InfoConfig) -> Text:
    """Describe an architecture, a part of any kind, or a saved model.

    Raises:
        ValueError: Unknown name; the message gives the nearest ones.
    """
    name = config.name
    kinds = [] if any(mark in name for mark in ":./") else [k for k in registry.KINDS if name in registry.names(k)]
    if any(mark in name for mark in ":./") or (not kinds and model_in(folder_of(name)) is not None):
        return Text(_rows(_saved(name)))
    if "model" in kinds:
        # the number of columns depends on the data; table models are shown with one
        columns: dict[str, Any] = (
            {"table_args": {"numeric": 1}} if resolve_config(name)["table_encoder"] is not None else {}
        )
        model = create_model(name, **columns)
        return Text(_rows(_model(name, model, _summary("model", name), model.pretrained_cfg.get("input_size"))))
    if not kinds:
        known = [known for kind in registry.KINDS for known in registry.names(kind)]
        raise ValueError(f"There is no model or part {name!r}; {did_you_mean(name, known)}")
    return Text("\n\n".join(_rows(_part(kind, name)) for kind in kinds))


def _saved(name: str) -> Iterator[tuple[str, str]]:
    folder = resolve_artifact(name)
    stored = read_config(folder)
    about = f"saved model, architecture {stored['architecture']}"
    yield from _model(name, load_model(folder), about, stored.get("input_size"))
    if (weights := next((each for each in shipped() if each.folder == folder), None)) is not None:
        yield "license", f"{weights.terms}; with the package {weights.package}"
    processor = stored.get("processor") or {}
    if processor.get("table"):
        stored["processor"] = processor | {"table": column_words(processor["table"], most=20)}
    shown = ("model", "architecture", "input_size", "mean", "std")
    yield from _entries({key: value for key, value in stored.items() if key not in shown})
    if (path := folder / "metrics.json").is_file():
        found = Evaluation.from_dict(read_json(path))
        yield from _entries({"metrics": ({"n": found.n} if found.n else {}) | found.figures})


def _model(name: str, model: FusionModel, summary: str, size: Any) -> Iterator[tuple[str, str]]:
    parts = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    yield name, summary
    yield "parameters", f"{sum(parts.values()):,}"
    yield from ((f"  {part}", f"{count:,}") for part, count in parts.items() if count)
    if size:
        yield "input_size", " x ".join(map(str, size))
    yield "num_features", str(model.num_features)
    yield from _entries(model.config)


def _part(kind: str, name: str) -> Iterator[tuple[str, str]]:
    yield name, f"{kind}: {_summary(kind, name)}"
    for p in inspect.signature(registry.get(kind, name)).parameters.values():
        if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL):
            yield f"  {p.name}", "required" if p.default is p.empty else repr(p.default)


def _summary(kind: str, name: str) -> str:
    return (inspect.getdoc(registry.get(kind, name)) or "").partition("\n")[0]


def _entries(values: Mapping[str, Any], indent: str = "") -> Iterator[tuple[str, str]]:
    """Keys and values line by line, nested ones indented; empty ones are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield indent + key, ""
            yield from _entries(value, indent + "  ")
        elif value not in (None, {}, []):
            yield indent + key, _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    rows = list(rows)
    width = max(len(key) for key, _ in rows)
    return "\n".join(f"{key:{width}}  {value}".rstrip() for key, value in rows)
