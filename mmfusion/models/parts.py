"""Build the parts of a model from their names, and check that they are compatible."""

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from mmfusion import registry
from mmfusion.models.sides import SideWidths, merged
from mmfusion.names import check_choice, did_you_mean
from mmfusion.outputs import Features, Fused, FusionOutput
from mmfusion.towers.bags import FEATURES
from mmfusion.towers.base import STANDARD, AdoptedTower, Side, Tower, declared
from mmfusion.towers.encoders import check_image_encoder
from mmfusion.towers.text import build_config

T = TypeVar("T")

#: ``default`` or None, for all towers or by modality.
EncoderWeights = str | Mapping[str, str | None] | None

#: keywords of a model whose values are dicts of keywords.
NESTED = ("image_args", "text_args", "table_args", "fusion_args", "head_args", "towers", "task_args")


def occupied_sides(config: dict[str, Any]) -> set[Side]:
    """The sides on which a model with these keywords has a tower."""
    sides: set[Side] = {registry.get("tower", name).side for name in config.get("towers") or {}}  # type: ignore[attr-defined]
    sides |= {"image"} if config.get("image_encoder") is not None else set()
    clinical = [name for name in ("text_encoder", "table_encoder") if config.get(name) is not None]
    return sides | ({"clinical"} if clinical else set())


def count_towers(config: Mapping[str, Any]) -> int:
    """Number of towers of a model with these keywords."""
    named = [name for name in ("image_encoder", "text_encoder", "table_encoder") if config.get(name) is not None]
    return len(named) + len(config.get("towers") or {})


def settle_features(config: dict[str, Any]) -> None:
    """Select the image tower ``bags`` if ``image_encoder`` is ``features`` (precomputed vectors instead of images).

    Raises:
        ValueError: ``image_encoder`` is ``features`` and another image tower was chosen.
    """
    encoder, tower = config["image_encoder"], config["image_tower"]
    if encoder == FEATURES and tower == "single":
        config["image_tower"] = "bags"
    elif encoder == FEATURES and tower in ("slices", "views", "global_local"):
        raise ValueError(f"image_encoder 'features' reads bags of vectors; image_tower {tower!r} reads pictures.")


def check_combination(config: dict[str, Any], encoder_weights: EncoderWeights) -> None:
    """Check that the keywords of a model are compatible.

    Raises:
        ValueError: Incompatible parts, or a value out of range.
        TypeError: Keywords for a part that the model does not have.
    """
    image, text, fusion, towers = (config[name] for name in ("image_encoder", "text_encoder", "fusion", "towers"))
    table = config.get("table_encoder")
    stem, aggregator, dropout = config["stem"], config["aggregator"], config["modality_dropout"]
    sides = occupied_sides(config)
    further = f", table_encoder={table!r}" if table is not None else ""
    further += f" and towers={list(towers)}" if towers else ""
    several = count_towers(config) > 1
    owners = {"image_args": image, "text_args": text, "table_args": table, "fusion_args": fusion, "dim": fusion}
    absent = [name for name, part in owners.items() if part is None and config.get(name)]
    absent += ["modality_dropout"] if dropout and not several else []
    faults = {
        "A model needs an image_encoder, a text_encoder or a table_encoder.": not sides,
        f"fusion={fusion!r} with image_encoder={image!r} and text_encoder={text!r}{further}: "
        "a fusion block needs both sides, and two sides need a fusion block.": (fusion is None) == (len(sides) == 2),
        f"modality_dropout={dropout} is not in [0, 1).": not 0 <= dropout < 1,
        "aux_heads=True needs an image side and a clinical side (text or columns); this model has only one.": (
            config["aux_heads"] and fusion is None
        ),
        f"stem={stem!r} and aggregator={aggregator!r} are parts of an image tower, but there is none.": (
            image is None and (stem or aggregator or config["aggregator_args"])
        ),
    }
    for fault, found in faults.items():
        if found:
            raise ValueError(fault)
    for name in absent:
        raise TypeError(f"{name}={config[name]!r} is for a part that this model does not have; remove it.")
    if isinstance(encoder_weights, Mapping):
        known = ["image", "text", "table", *towers]
        for name in encoder_weights:
            if name not in known:
                raise ValueError(f"encoder_weights has the unknown modality {name!r}; {did_you_mean(name, known)}")
    for weights in encoder_weights.values() if isinstance(encoder_weights, Mapping) else [encoder_weights]:
        check_choice("encoder_weights", weights, (None, "default"))


def check_stem(config: dict[str, Any]) -> None:
    """Raise TypeError for a stem or an aggregator that the image tower does not accept.

    Towers that pass unknown keywords on to timm are checked, too.
    """
    if config["image_encoder"] is None:
        return
    taken = registry.keywords(registry.get("image_tower", config["image_tower"]))
    for name in ("stem", "aggregator", "aggregator_args"):
        if config[name] is not None and name not in taken:
            raise TypeError(f"image_tower {config['image_tower']!r} takes no {name}; image_tower 'slices' does.")


def check_parts(config: Mapping[str, Any]) -> None:
    """Check names of parts and their keywords, without reading weights.

    A quick check before many models are built; building a model makes the same checks.

    Args:
        config: All keywords of a ``FusionModel``.

    Raises:
        ValueError: Unknown name; the message gives the nearest ones.
        TypeError: The part has no such keyword.
    """
    config = {**config, **{name: config.get(name) or {} for name in NESTED}}
    settle_features(config)
    check_combination(config, config["encoder_weights"])
    check_stem(config)
    for kind, name, modality, holder, key, *encoder in _named_towers(config):
        args = holder[key]
        _check_keywords(kind, name, args)
        if not encoder or not registry.get(kind, name).__module__.startswith("mmfusion."):
            continue  # a user's own tower checks its encoder itself
        if modality == "image":
            if args.get("config") is None and encoder[0] != FEATURES:
                check_image_encoder(encoder[0])
        elif modality == "text":
            build_config(encoder[0], args.get("config"), args.get("vocab_size"))
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


def build_towers(config: dict[str, Any], encoder_weights: EncoderWeights) -> Iterator[Tower]:
    """The towers of a model: image, text, table, and further ones in the order of ``config["towers"]``.

    Each tower's keywords in ``config`` are replaced by those that rebuild it on any machine.

    Raises:
        ValueError: An unknown part, or two towers for one modality.
        TypeError: A keyword that a tower does not accept, or a tower without a required attribute.
    """
    fusion, levels = config["fusion"], 0
    if fusion is not None and getattr(registry.get("fusion", fusion), "reads_levels", False):
        levels = int(config["fusion_args"].get("num_levels", 3))
    check_stem(config)
    taken: set[str] = set()
    levelled: set[Side] = set()
    for kind, name, modality, holder, key, *encoder in _named_towers(config):
        # only the first tower of a side provides levels; those of another would never be used
        side = getattr(registry.get(kind, name), "side", STANDARD[modality][0] if modality in STANDARD else None)
        wanted = 0 if side in levelled else levels
        shared = ("stem", "aggregator", "aggregator_args") if modality == "image" and encoder else ()
        own = {n: config[n] for n in shared if config[n] is not None}
        args = holder[key] | own
        tower = _tower(kind, name, modality, *encoder, args=args, weights=encoder_weights, num_levels=wanted)
        holder[key] = tower.resolve(holder[key])
        if tower.modality in taken:
            raise ValueError(f"Two towers for the modality {tower.modality!r}; a model has one for each.")
        taken.add(tower.modality)
        levelled |= {tower.side} if tower.level_dims else set()
        yield tower


def _named_towers(config: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """Kind, name, modality, the dict and key that hold the keywords, and the encoder if the tower takes one."""
    for modality in ("image", "text"):
        if (encoder := config[f"{modality}_encoder"]) is not None:
            kind = f"{modality}_tower"
            yield kind, config[kind], modality, config, f"{modality}_args", encoder
    if (table := config.get("table_encoder")) is not None:
        yield "table_tower", table, "table", config, "table_args"
    yield from (("tower", name, name, config["towers"], name) for name in list(config["towers"]))


def weights_of(weights: EncoderWeights, modality: str) -> str | None:
    """The ``encoder_weights`` of one tower."""
    return weights.get(modality) if isinstance(weights, Mapping) else weights


def _tower(
    kind: str, name: str, modality: str, *encoder: str, args: dict[str, Any], weights: EncoderWeights, num_levels: int
) -> Tower:
    weights = weights_of(weights, modality)
    taken = registry.keywords(registry.get(kind, name))
    # further towers have no levels unless they declare them; they and table towers have no pretrained weights. The
    # other towers raise an error for what they do not support
    lenient = kind == "tower"
    options: dict[str, Any] = {}
    if "weights" in taken or (weights is not None and kind not in ("tower", "table_tower")):
        options["weights"] = weights
    if num_levels and "num_levels" in taken:
        options["num_levels"] = num_levels
    part = f"{kind} {name!r}"
    tower = declared(registry.create(kind, name, *encoder, **options, **args), part, modality)
    if num_levels and not lenient and len(tower.level_dims) != num_levels:
        raise ValueError(f"{part} has no levels, but the fusion block needs {num_levels}; choose another fusion.")
    return tower


def build_fusion(config: dict[str, Any], image: SideWidths, clinical: SideWidths) -> nn.Module:
    """Build the fusion block for the widths of both sides; ``num_features`` is set if the block does not define it.

    With auxiliary heads, ``side_dims`` is set in the same way.

    Raises:
        TypeError: The block is not a module, or has no ``forward``.
    """
    name, dim = config["fusion"], config["dim"]
    taken = registry.keywords(registry.get("fusion", name))
    widths: dict[str, Any] = {"image_dim": image.num_features, "text_dim": clinical.num_features}
    widths |= {} if dim is None else {"dim": dim}
    levels = {"image_level_dims": image.level_dims, "text_level_dims": clinical.level_dims}
    widths |= {keyword: list(dims) for keyword, dims in levels.items() if keyword in taken}
    block = _module("fusion", name, "forward(image, text) -> Fused", widths | config["fusion_args"])
    if not hasattr(block, "num_features"):
        block.num_features = dim or image.num_features
    if config["aux_heads"] and not hasattr(block, "side_dims"):
        block.side_dims = (image.num_features, clinical.num_features)
    return block


def build_head(config: dict[str, Any], in_features: int, fusion: nn.Module | None, image: SideWidths) -> nn.Module:
    """Build the head; widths of tokens and streams are passed if it accepts them and the model has any.

    Without classes the head is the identity.

    Raises:
        TypeError: The head is not a module, or has no ``forward``.
    """
    if config["num_classes"] == 0:
        return nn.Identity()
    sizes: dict[str, Any] = {"in_features": in_features, "num_classes": config["num_classes"]}
    taken = registry.keywords(registry.get("head", config["head"]))
    offered = {"token_features": getattr(fusion, "token_features", None), "stream_features": image.stream_features}
    sizes |= {keyword: width for keyword, width in offered.items() if width is not None and keyword in taken}
    return _module("head", config["head"], "forward(fused) -> FusionOutput", sizes | config["head_args"])


def build_aux_heads(config: dict[str, Any], fusion: Any) -> nn.ModuleDict | None:
    """A head for each side, ``image`` and ``text``; None if the model has no auxiliary heads."""
    if config["num_classes"] == 0 or not config["aux_heads"]:
        return None
    own = {"num_classes": config["num_classes"], "hidden_features": config["aux_hidden"], "dropout": 0.0}
    widths = zip(("image", "text"), fusion.side_dims, strict=True)
    return nn.ModuleDict({side: registry.create("head", "mlp", in_features=width, **own) for side, width in widths})


def _module(kind: str, name: str, forward: str, keywords: dict[str, Any]) -> Any:
    module = registry.create(kind, name, **keywords)
    named = f"{kind} {name!r} ({type(module).__name__})"
    if not isinstance(module, nn.Module):
        raise TypeError(f"{named} is not a torch.nn.Module.")
    if type(module).forward is nn.Module.forward:
        raise TypeError(f"{named} has no forward; write {forward}.")
    return module


def check_inputs(inputs: dict[str, Any], towers: Mapping[str, Tower], ignored: Sequence[str]) -> None:
    """Raise TypeError, with the nearest names, for an input that no tower reads, except those in ``ignored``."""
    if isinstance(inputs.get("pixel_values"), Mapping):
        raise TypeError("The first input is a dict, not images: a batch is given by keyword, model(**batch).")
    own = [(*tower.inputs, f"{modality}_present", f"{modality}_features") for modality, tower in towers.items()]
    known = [*ignored, *(name for names in own for name in names)]
    for name in inputs:
        if name not in known:
            raise TypeError(f"No tower of the model reads the input {name!r}; {did_you_mean(name, known)}")


def checked_features(features: Any, tower: Tower) -> Features:
    """Return a tower's output after checking it against the tower's declared widths."""
    part, width = f"The {tower.modality} tower", tower.num_features
    return _checked(features, Features, part, tower, {"pooled": width, "tokens": width}, "self.num_features")


def fuse(block: Any, name: str, sides: Sequence[Features]) -> Fused:
    """Input of the head: both sides (image first) fused, or the only side; with the streams of the first side."""
    if block is None:
        fused = Fused(pooled=sides[0].pooled, tokens=sides[0].tokens, mask=sides[0].mask)
    else:
        fused = checked_fused(block(*sides), block, name)
        fused.image = sides[0].pooled if fused.image is None else fused.image
        fused.text = sides[1].pooled if fused.text is None else fused.text
    return fused.replace(
        streams=sides[0].streams,
        gates=merged(*(side.gates for side in sides), fused.gates),
        attentions=merged(*(side.attentions for side in sides), fused.attentions),
    )


def checked_fused(fused: Any, block: Any, name: str) -> Fused:
    """Return a fusion block's output after checking it against the block's declared widths."""
    part, sides = f"fusion {name!r}", dict(zip(("image", "text"), getattr(block, "side_dims", ()), strict=False))
    _checked(fused, Fused, part, block, {"pooled": block.num_features}, "self.num_features")
    return _checked(fused, Fused, part, block, sides, "self.side_dims")


def checked_output(output: Any, head: nn.Module, name: str, num_classes: int) -> FusionOutput:
    """Return a head's output after checking that it has logits for ``num_classes``."""
    return _checked(output, FusionOutput, f"head {name!r}", head, {"logits": num_classes}, "its width to num_classes")


def _checked(result: Any, kind: type[T], part: str, module: nn.Module, widths: dict[str, int], declared_by: str) -> T:
    named = f"{part} ({type(_unwrapped(module)).__name__})"
    if not isinstance(result, kind):
        raise TypeError(f"{named} returned {type(result).__name__}; forward has to return {kind.__name__}.")
    for field, width in widths.items():
        value: Tensor | None = getattr(result, field)
        if value is not None and value.shape[-1] != width:
            raise ValueError(
                f"{named} returned {field} of width {value.shape[-1]} and declares {width}; set {declared_by}."
            )
    return result


def _unwrapped(module: nn.Module) -> nn.Module:
    return module.backbone if isinstance(module, AdoptedTower) else module
