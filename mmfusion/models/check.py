"""What a configuration of a model says, checked before anything is built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from mmfusion import registry
from mmfusion.towers.image import check_image_encoder
from mmfusion.towers.text import build_config


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse parts that do not go together.

    Args:
        config: All keywords of a ``FusionModel``; other entries are ignored.

    Raises:
        ValueError: Parts that do not go together, a value out of range, or an unknown image tower.
        TypeError: A keyword for a part that is absent, or that the image tower does not take.
    """
    image_encoder, text_encoder, fusion = config["image_encoder"], config["text_encoder"], config["fusion"]
    if image_encoder is None and text_encoder is None:
        raise ValueError("A model needs an image_encoder or a text_encoder.")
    if (fusion is None) == (image_encoder is not None and text_encoder is not None):
        raise ValueError(
            f"fusion={fusion!r} with image_encoder={image_encoder!r} and text_encoder={text_encoder!r}: "
            "a fusion block needs both towers, and both towers need one."
        )
    if not 0 <= config["modality_dropout"] < 1:
        raise ValueError(f"modality_dropout={config['modality_dropout']} is not in [0, 1).")
    if config["aux_heads"] and fusion is None:
        raise ValueError("aux_heads=True needs an image tower and a text tower; a model of one modality has no other.")
    needs = {"image_args": image_encoder, "text_args": text_encoder}
    needs |= dict.fromkeys(("fusion_args", "dim", "modality_dropout"), fusion)
    for keyword, part in needs.items():
        if part is None and config[keyword]:
            raise TypeError(f"{keyword}={config[keyword]!r} is for a part that this model does not have.")
    if config["encoder_weights"] not in (None, "default"):
        raise ValueError(f"encoder_weights={config['encoder_weights']!r} is not one of None, 'default'.")
    stem, aggregator = config["stem"], config["aggregator"]
    if image_encoder is None and (stem or aggregator or config["aggregator_args"]):
        raise ValueError(f"stem={stem!r} and aggregator={aggregator!r} are parts of an image tower; there is none.")
    if image_encoder is not None:
        tower = config["image_tower"]
        taken = registry.keywords(registry.get("image_tower", tower))
        for name in ("stem", "aggregator", "aggregator_args"):  # also where the tower hands further keywords to timm
            if config[name] is not None and name not in taken:
                raise TypeError(f"image_tower {tower!r} takes no {name}; image_tower 'slices' does.")


def check_parts(config: Mapping[str, Any]) -> None:
    """Refuse names that nothing has and keywords that the named part does not take. Reads no weights.

    Building a model refuses the same; this is the quick check for a list of models to be built later.

    Args:
        config: All keywords of a ``FusionModel``.

    Raises:
        ValueError: Unknown name; the message gives the nearest ones.
        TypeError: A keyword that the part does not take.
    """
    check_config(config)
    for side, encoder in (("image", config["image_encoder"]), ("text", config["text_encoder"])):
        if encoder is None:
            continue
        tower = registry.get(f"{side}_tower", config[f"{side}_tower"])
        args = config[f"{side}_args"] or {}
        _check_keywords(f"{side}_tower", config[f"{side}_tower"], args)
        if not tower.__module__.startswith("mmfusion."):
            continue  # a tower of a user's own knows its encoders itself
        if side == "image":
            check_image_encoder(encoder)
        else:
            build_config(encoder, args.get("config"), args.get("vocab_size"))
    for name, args in (config.get("towers") or {}).items():
        _check_keywords("tower", name, args)
    for kind in ("aggregator", "fusion", "head"):
        if config[kind] is not None:
            _check_keywords(kind, config[kind], config[f"{kind}_args"] or {})


def _check_keywords(kind: str, name: str, keywords: Mapping[str, Any]) -> None:
    part = registry.get(kind, name)
    try:
        inspect.signature(part).bind_partial(**keywords)
    except TypeError as error:
        taken = ", ".join(registry.keywords(part))
        raise TypeError(f"{kind} {name!r}: {error}; it takes {taken}.") from None
