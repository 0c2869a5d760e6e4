"""``create_model`` and similar functions: names in, modules out."""

import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

import timm
import torch
from torch import nn

from mmfusion import registry
from mmfusion.artifacts.folder import PREFIXES, refuse_path, resolve_artifact, shipped_weights
from mmfusion.artifacts.integrity import edits
from mmfusion.artifacts.names import LOCAL
from mmfusion.artifacts.shipped import tell_terms
from mmfusion.models.fitting import check_fit, describe_inputs, fitted, set_columns
from mmfusion.models.fusion_model import FusionModel, model_keywords
from mmfusion.models.parts import EncoderWeights, count_towers, occupied_sides
from mmfusion.models.saved import load_model, refuse_keywords
from mmfusion.towers.bags import FEATURES

#: parts that can be swapped, and the keywords that belong to the part. (Changing the encoder does not swap the tower.)
SWAPPABLE = {
    "image_tower": ("image_args", "stem", "aggregator", "aggregator_args"),
    "aggregator": ("aggregator_args",),
    "text_tower": ("text_args",),
    "table_encoder": ("table_args",),
    "fusion": ("fusion_args",),
    "head": ("head_args",),
    "task": ("task_args",),
}


def register_model(entrypoint: Callable[..., FusionModel]) -> Callable[..., FusionModel]:
    """Decorator that registers a function as the architecture of its name, as timm's does.

    The function takes keywords of ``FusionModel`` (``num_classes`` and ``encoder_weights`` among them) and returns one.
    """
    return registry.register("model", entrypoint.__name__)(entrypoint)


def build(overrides: dict[str, Any], /, **architecture: Any) -> FusionModel:
    """Build the model of an architecture, with the caller's overrides; see :func:`configured`."""
    return FusionModel(**configured(overrides, architecture))


def configured(overrides: Mapping[str, Any], architecture: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the caller's overrides with the keywords of an architecture.

    Swapping a part drops the architecture's keywords for the old part; keywords for an unchanged part are merged over
    the architecture's. Removing the only tower of a side (``text_encoder=None`` without columns) also removes the
    fusion block and the auxiliary heads.

    Raises:
        TypeError: An override is not a keyword of a model.
    """
    known = [*model_keywords(), "num_classes", "encoder_weights"]
    refuse_keywords(overrides, known)
    config = dict(architecture)
    if overrides.get("image_encoder") == FEATURES:
        overrides = {"image_tower": "bags", **overrides}  # the keywords of the replaced tower do not apply
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
        TypeError: An unknown keyword.
    """
    entrypoint: Any = registry.get("model", name)
    defaults = {p.name: p.default for p in inspect.signature(FusionModel).parameters.values()}
    if hasattr(entrypoint, "keywords"):
        return defaults | configured(overrides, entrypoint.keywords)
    with torch.device("meta"):  # the keywords of a user's own entry point are known only after building the model
        return defaults | entrypoint(**overrides).config


def create_model(
    name: str | os.PathLike[str],
    *,
    pretrained: bool = False,
    num_classes: int | None = None,
    encoder_weights: EncoderWeights = None,
    processor: Any | None = None,
    allow_edited: bool | None = None,
    **overrides: Any,
) -> FusionModel:
    """Create a model by name.

    Args:
        name: An architecture (``"mibf_resnet50"``), an architecture with a weight tag (``"mibf_lite0.ham10000"``), or a
            saved model: ``"local-dir:FOLDER"`` (or a ``Path``) or ``"hf-hub:org/name@revision"``.
        pretrained: Load the weights of the architecture's (first) tag.
        num_classes: C; None uses the architecture's or the saved model's. A saved model with another number gets a new
            head, and a warning says so.
        encoder_weights: ``"default"`` initializes the towers with ImageNet and language-model weights; a dict selects
            modalities (``{"image": "default"}``). Only this argument and Hub ids use the network.
        processor: :class:`mmfusion.data.Processor` that the model has to match: it sets the vocabulary of a built-in
            text encoder without weights, the columns of a table tower, and ``num_classes``. Explicit arguments take
            precedence; a mismatch is an error.
        allow_edited: Accept a saved model whose files were edited by hand, with a warning; None raises an error.
        overrides: Parts by name (``fusion="gated"``) or a part's keywords as a dict
            (``fusion_args={"num_layers": 2}``).

    Raises:
        ValueError: Unknown name (the message gives the nearest ones), no weights under it, or a processor that does not
            fit the model.
        TypeError: The model or the chosen part has no such keyword.
    """
    name = name if isinstance(name, str) else f"{LOCAL}{os.fspath(name)}"
    architecture, _, tag = name.partition(".")
    is_saved = name.startswith(PREFIXES)
    if encoder_weights is not None and (is_saved or pretrained or tag):
        raise ValueError(
            f"encoder_weights={encoder_weights!r} cannot be combined with {name!r}: a saved model has its own weights."
        )
    if processor is not None and num_classes is None:
        num_classes = len(processor.labels) or None
    if not is_saved and not registry.is_known("model", architecture):
        refuse_path(name)
        _refuse_encoder(name)
    if is_saved:
        with edits(allow_edited):
            model = load_model(resolve_artifact(name), num_classes=num_classes, **overrides)
    elif pretrained or tag:
        registry.get("model", architecture)
        weights = shipped_weights(name)
        tell_terms(weights)
        with edits(allow_edited):
            model = load_model(weights.folder, num_classes=num_classes, **overrides)
    else:
        chosen = {} if num_classes is None else {"num_classes": num_classes}
        model = _new_model(name, processor, encoder_weights=encoder_weights, **chosen, **overrides)
    if processor is not None:
        check_fit(model, processor)
        describe_inputs(model, processor)
    return model


def _refuse_encoder(name: str) -> None:
    """Raise ValueError for the name of a timm architecture, with the argument that takes it."""
    if timm.is_model(name.partition(".")[0]):
        alone = f"create_model('image_lite0', image_encoder={name!r}) classifies images with it"
        both = f"create_model('mibf_lite0', image_encoder={name!r}) images with text"
        raise ValueError(f"Unknown model {name!r}: it is an image encoder of timm; {alone}, {both}.")


def _new_model(name: str, processor: Any | None, **keywords: Any) -> FusionModel:
    """A new model of an architecture, matching the processor."""
    entrypoint = registry.get("model", name)
    if processor is not None:
        given = {key: value for key, value in keywords.items() if key not in ("num_classes", "encoder_weights")}
        config = resolve_config(name, **given) | {"encoder_weights": keywords["encoder_weights"]}
        keywords |= fitted(config, given, processor)
    model: FusionModel = entrypoint(**keywords)
    model.architecture = name
    if processor is not None:
        set_columns(model, processor)
    return model


def create(kind: str, name: str, **kwargs: Any) -> Any:
    """Build a part of any kind by name, e.g. ``create("head", "mlp", in_features=512, num_classes=7)``.

    Args:
        kind: ``model`` (as :func:`create_model`), or a kind of :func:`list_components`.
        name: Name under that kind.
        kwargs: Keywords of the part.

    Raises:
        ValueError: Unknown kind or name; the message gives the nearest ones.
        TypeError: A keyword that the part does not take, or a required one that is missing.
    """
    return create_model(name, **kwargs) if kind == "model" else registry.create(kind, name, **kwargs)


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
