"""``create_model`` and its kin: names in, modules out."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from mmfusion import registry
from mmfusion.artifacts.folder import PREFIXES, refuse_path, resolve_artifact
from mmfusion.artifacts.shipped import shipped
from mmfusion.models.fusion_model import FusionModel, model_keywords
from mmfusion.models.parts import count_towers, occupied_sides
from mmfusion.models.saved import load_model
from mmfusion.names import did_you_mean

#: parts that can be swapped, and the keywords that belong to the part. (Another encoder is the same tower.)
SWAPPABLE = {
    "image_tower": ("image_args", "stem", "aggregator", "aggregator_args"),
    "aggregator": ("aggregator_args",),
    "text_tower": ("text_args",),
    "table_encoder": ("table_args",),
    "fusion": ("fusion_args",),
    "head": ("head_args",),
}


def register_model(entrypoint: Callable[..., FusionModel]) -> Callable[..., FusionModel]:
    """Decorator that registers a function as the architecture of its name."""
    return registry.register("model", entrypoint.__name__)(entrypoint)


def build(overrides: dict[str, Any], /, **architecture: Any) -> FusionModel:
    """Build the model of an architecture, with the caller's overrides; see :func:`configured`."""
    return FusionModel(**configured(overrides, architecture))


def configured(overrides: Mapping[str, Any], architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the caller's overrides over the keywords of an architecture.

    Swapping a part drops the architecture's keywords for the old part; keywords for an unchanged part are merged over
    the architecture's. Removing the only tower of a side (``text_encoder=None`` without columns) removes fusion block
    and auxiliary heads too.

    Raises:
        TypeError: an override is no keyword of a model.
    """
    known = [*model_keywords(), "num_classes", "encoder_weights"]
    for name in overrides:
        if name not in known:
            raise TypeError(f"create_model got an unexpected keyword {name!r}; {did_you_mean(name, known)}")
    config = dict(architecture)
    for part, args in SWAPPABLE.items():
        if part in overrides and overrides[part] != architecture.get(part):
            for name in args:
                config.pop(name, None)
    for name, value in overrides.items():
        merge = name.endswith("_args") and config.get(name)
        config[name] = {**config[name], **(value or {})} if merge else value
    encoders = ("image_encoder", "text_encoder", "table_encoder")
    if any(tower in overrides and overrides[tower] is None for tower in encoders):
        gone = [] if len(occupied_sides(config)) > 1 else ["fusion", "fusion_args", "dim", "aux_heads"]
        gone += [] if count_towers(config) > 1 else ["modality_dropout"]
        for modality in ("image", "text"):
            if config.get(f"{modality}_encoder") is None:
                gone += [f"{modality}_tower", *SWAPPABLE[f"{modality}_tower"]]
        config = {name: value for name, value in config.items() if name not in gone or name in overrides}
    return config


def resolve_config(name: str, **overrides: Any) -> dict[str, Any]:
    """All keywords of the model that :func:`create_model` would build for an architecture.

    Args:
        name: Architecture, without a weight tag.
        overrides: As in :func:`create_model`.

    Raises:
        ValueError: Unknown name.
        TypeError: A keyword that models do not take.
    """
    entrypoint: Any = registry.get("model", name)
    defaults = {p.name: p.default for p in inspect.signature(FusionModel).parameters.values()}
    if hasattr(entrypoint, "keywords"):
        return defaults | configured(overrides, entrypoint.keywords)
    with torch.device("meta"):  # an entry point of a user's own says what it makes by making it
        return defaults | entrypoint(**overrides).config


def create_model(
    name: str,
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    encoder_weights: str | None = None,
    **overrides: Any,
) -> FusionModel:
    """Create a model by name.

    Args:
        name: an architecture (``"mibf_resnet50"``), an architecture with a weight tag (``"mibf_lite0.ham10000"``), or a
            saved model: ``"local-dir:FOLDER"`` or ``"hf-hub:org/name@revision"``.
        pretrained: load the weights of the architecture's (first) tag.
        num_classes: C; None takes the architecture's or the saved model's. A saved model with another number gets a new
            head, and a warning says so.
        encoder_weights: ``"default"`` starts the towers from ImageNet and language-model weights. Only then, or with a
            hub id, is the network touched.
        overrides: parts by name (``fusion="gated"``) or a part's keywords as a dict
            (``fusion_args={"num_layers": 2}``).

    Raises:
        ValueError: unknown name (the message gives the nearest ones), or no weights under it.
        TypeError: a keyword that the model or the chosen part does not take.
    """
    architecture, _, tag = name.partition(".")
    is_saved = name.startswith(PREFIXES)
    if encoder_weights is not None and (is_saved or pretrained or tag):
        raise ValueError(
            f"encoder_weights={encoder_weights!r} does not go with {name!r}: a saved model brings its own."
        )
    if is_saved:
        return load_model(resolve_artifact(name), num_classes=num_classes, **overrides)
    refuse_path(name)
    entrypoint = registry.get("model", architecture)
    if pretrained or tag:
        return load_model(resolve_artifact(name), num_classes=num_classes, **overrides)
    chosen = {} if num_classes is None else {"num_classes": num_classes}
    model: FusionModel = entrypoint(encoder_weights=encoder_weights, **chosen, **overrides)
    model.architecture = architecture
    return model


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names of the architectures that match a wildcard, in natural order.

    Args:
        pattern: shell wildcard, e.g. ``"mibf*"``.
        pretrained: list the weights that come with the package instead, as ``"arch.tag"``. Such a name is a string with
            ``metrics``, ``dataset``, ``license`` and ``size``, and shows them.
    """
    if not pretrained:
        return registry.names("model", pattern)
    return [name for name in shipped() if any(registry.matches(n, pattern) for n in (name, name.split(".")[0]))]


def list_components(kind: str, pattern: str = "*") -> list[str]:
    """Names of the parts of a kind: fusion, head, aggregator, image_tower, text_tower, table_tower, tower, loss."""
    return registry.names(kind, pattern)


def create_fusion(name: str, **kwargs: Any) -> nn.Module:
    """Build a fusion block, e.g. ``create_fusion("ibfa", image_dim=768, text_dim=768, dim=768)``."""
    return registry.create("fusion", name, **kwargs)


def create_head(name: str, **kwargs: Any) -> nn.Module:
    """Build a head, e.g. ``create_head("mlp", in_features=512, num_classes=7)``."""
    return registry.create("head", name, **kwargs)


def create_loss(name: str, **kwargs: Any) -> nn.Module:
    """Build a loss, e.g. ``create_loss("mp", alpha=0.3, beta=0.6, gamma=1.1)``."""
    return registry.create("loss", name, **kwargs)


def create_aggregator(name: str, **kwargs: Any) -> nn.Module:
    """Build a sequence aggregator, e.g. ``create_aggregator("bilstm", in_features=512, hidden_size=256)``."""
    return registry.create("aggregator", name, **kwargs)
