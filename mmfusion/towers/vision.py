"""transformers vision encoders with timm's interface, for all image towers."""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmfusion.names import did_you_mean
from mmfusion.towers.capturing import install_hooks
from mmfusion.untrusted import asks_for_code


class _Family(NamedTuple):
    """How to read the outputs of a model type.

    Attributes:
        prefix: Number of tokens before those of the map; None if the type returns maps.
        pooled: ``class`` uses the first token, ``mean`` the mean over the map, any other name a pooling module.
    """

    prefix: int | None
    pooled: str


#: Supported model types: their classes map one ``pixel_values`` to ``last_hidden_state`` and run no remote code.
FAMILIES = {
    "vit": _Family(1, "class"),
    "deit": _Family(2, "class"),
    "beit": _Family(1, "pooler"),
    "ijepa": _Family(0, "mean"),
    "dinov2": _Family(1, "class"),
    "dinov2_with_registers": _Family(1, "class"),
    "dinov3_vit": _Family(1, "class"),
    "clip_vision_model": _Family(1, "class"),
    "siglip_vision_model": _Family(0, "head"),
    "swin": _Family(0, "mean"),
    "swinv2": _Family(0, "mean"),
    "convnext": _Family(None, "mean"),
    "convnextv2": _Family(None, "mean"),
    "resnet": _Family(None, "mean"),
    "regnet": _Family(None, "mean"),
}

#: Image-text models, of which the vision part is used.
TWO_HALVES = ("clip", "siglip")

#: Pillow's interpolation numbers.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}


def vision_config(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The plain configuration of a vision encoder, from a repository's ``config.json``.

    Raises:
        ValueError: The type is not in :data:`FAMILIES`, or the number of channels is not three.
    """
    kind = config.get("model_type")
    if kind in TWO_HALVES:
        kind, config = f"{kind}_vision_model", {**(config.get("vision_config") or {})}
    if kind not in FAMILIES:
        known = [*FAMILIES, *TWO_HALVES]
        raise ValueError(
            f"image_encoder {name!r} has the unsupported transformers type {kind!r}; supported are "
            f"{', '.join(known)} and every model of timm. {did_you_mean(str(kind), known)}"
        )
    ours = ("transformers_version", "architectures", "_name_or_path", "dtype", "torch_dtype", "id2label", "label2id")
    kept = {key: value for key, value in config.items() if key not in ours and not asks_for_code(key)}
    if kept.get("num_channels", 3) != 3:
        raise ValueError(f"image_encoder {name!r} has {kept['num_channels']} channels, but images have three.")
    return kept | {"model_type": kind}


def preprocessing(values: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """timm's ``pretrained_cfg`` from a ``preprocessor_config.json`` and the encoder's configuration."""
    crop, size = values.get("crop_size"), values.get("size")
    own = config.get("image_size", 224)
    own = max(own) if isinstance(own, list | tuple) else own
    resized = _side(size) or own
    shown = (_side(crop) if values.get("do_center_crop") else None) or resized
    normalised = values.get("do_normalize", True)
    default_mean, default_std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    mean = values.get("image_mean", default_mean) if normalised else (0.0, 0.0, 0.0)
    std = values.get("image_std", default_std) if normalised else (1.0, 1.0, 1.0)
    crop_pct = values.get("crop_pct") or min(1.0, shown / resized)
    found = {"input_size": [3, shown, shown], "mean": list(mean), "std": list(std), "crop_pct": crop_pct}
    return found | {"interpolation": _RESAMPLING.get(values.get("resample", 3), "bicubic")}


def _side(size: Any) -> int | None:
    """Side of a square from the size formats of transformers' preprocessors."""
    if isinstance(size, Mapping):
        return size.get("height") or size.get("shortest_edge")
    return size if isinstance(size, int) else None


class VisionEncoder(nn.Module):
    """A transformers vision encoder with the methods of a timm model that :class:`Backbone` calls.

    Args:
        config: Plain configuration from :func:`vision_config`.
        pretrained_cfg: Input size and normalization.
        folder: Folder of ``model.safetensors``; None leaves the weights random.
        name: Name of the encoder, for messages.

    Raises:
        ValueError: The weights do not match the configuration.
        TypeError: The encoder's configuration has no such keyword.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        pretrained_cfg: Mapping[str, Any],
        folder: Path | None = None,
        name: str = "",
        **changes: Any,
    ) -> None:
        super().__init__()
        from transformers import AutoConfig, AutoModel

        whole = AutoConfig.for_model(**vision_config(config, name))
        for key, value in changes.items():
            if not hasattr(whole, key):
                raise TypeError(f"image_encoder {name!r} has no setting {key!r} in its configuration.")
            setattr(whole, key, value)
        self.family = FAMILIES[whole.model_type]
        model_class: Any = AutoModel._model_mapping[type(whole)]
        has_pooler = "add_pooling_layer" in inspect.signature(model_class).parameters
        options = {"add_pooling_layer": self.family.pooled == "pooler"} if has_pooler else {}
        build = model_class if folder is None else partial(_loaded, model_class, folder)
        self.net: Any = build(whole, **options)
        for parameter_name, parameter in self.net.named_parameters():
            if parameter_name.endswith("mask_token"):  # only used in pretraining
                parameter.requires_grad_(False)
        install_hooks(self.net)
        self.pretrained_cfg = dict(pretrained_cfg)
        self.num_prefix_tokens = (self.family.prefix or 0) + int(getattr(whole, "num_register_tokens", 0) or 0)
        widths, names = _widths(whole), _level_modules(self.net, len(_widths(whole)))
        self.feature_info = [{"num_chs": w, "module": f"net.{n}"} for w, n in zip(widths, names, strict=True)]
        self.num_features = self.head_hidden_size = widths[-1]
        self._stack = re.split(r"\.\d+", names[0])[0]  # the module list whose elements are the levels
        self._interpolates = "interpolate_pos_encoding" in inspect.signature(self.net.forward).parameters

    def _run(self, x: Tensor, levels: bool = False) -> Any:
        options: dict[str, Any] = {"output_hidden_states": levels}
        size = getattr(self.net.config, "image_size", None)
        size = (size, size) if isinstance(size, int) else size
        if self._interpolates and size is not None:
            options["interpolate_pos_encoding"] = tuple(x.shape[-2:]) != tuple(size)
        return self.net(pixel_values=x, **options)

    def _final(self, out: Any, x: Tensor) -> Tensor:
        final: Tensor = out.last_hidden_state
        norm = getattr(self.net, "post_layernorm", None)
        if self.family.pooled == "class" and norm is not None:
            return norm(final)  # CLIP normalizes only the pooled token
        # a transformer without class token and without a pooling module is a map
        return self._map(final, x) if final.ndim == 3 and self.family == _Family(0, "mean") else final

    def _map(self, tokens: Tensor, x: Tensor) -> Tensor:
        """(B, N, C) tokens of an image (B, 3, H, W) -> (B, C, h, w), without prefix tokens."""
        if tokens.ndim == 4:
            return tokens
        count, prefix = tokens.shape[1], self.num_prefix_tokens
        height = max(1, round(math.sqrt((count - prefix) * x.shape[-2] / x.shape[-1])))
        return tokens[:, prefix:].transpose(1, 2).unflatten(-1, (height, -1))

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> last tokens (B, N, C) or map (B, C, h, w)."""
        return self._final(self._run(x), x)

    def forward_intermediates(self, x: Tensor, indices: Sequence[int]) -> tuple[Tensor, list[Tensor]]:
        """(B, 3, H, W) -> last tokens or map, and the maps (B, C_i, h, w) after the levels ``indices``."""
        out = self._run(x, levels=True)
        return self._final(out, x), [self._map(out.hidden_states[i + 1], x) for i in indices]

    def forward_head(self, final: Tensor, pre_logits: bool = True) -> Tensor:
        """Result of :meth:`forward_features` -> (B, C)."""
        if final.ndim == 4:
            pooled = final.mean(dim=(2, 3))
            norm = getattr(self.net, "layernorm", None) if self.family.prefix is None else None
            return pooled if norm is None else norm(pooled)
        pool = getattr(self.net, self.family.pooled, None)
        if isinstance(pool, nn.Module):
            return pool(final)
        return final[:, 0] if self.family.pooled == "class" else final.mean(dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        return self.forward_head(self.forward_features(x))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Trade compute for memory."""
        if self.net.supports_gradient_checkpointing:
            switch = self.net.gradient_checkpointing_enable if enable else self.net.gradient_checkpointing_disable
            switch()
        elif enable:
            name = type(self.net).__name__
            warnings.warn(f"{name} has no gradient checkpointing; its memory use is unchanged.", stacklevel=3)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Parameter groups in timm's format: the embedding, each block, and everything after the last with it."""
        blocks = [(rf"^net\.{re.escape(self._stack)}\.(\d+)", None), (r"^net\.", (99999,))]
        return {"stem": r"^net\.(?:embeddings|embedder|pre_layrnorm)", "blocks": blocks}

    def no_weight_decay(self) -> set[str]:
        """Position embeddings and learned tokens."""
        ends = (
            "position_embeddings",
            "position_embedding.weight",
            "cls_token",
            "distillation_token",
            "register_tokens",
        )
        return {name for name, _ in self.named_parameters() if name.endswith((*ends, "class_embedding"))}


def _loaded(model_class: Any, folder: Path, config: Any, **options: Any) -> Any:
    """The encoder with all weights of a folder, in single precision."""
    net, info = model_class.from_pretrained(
        str(folder),
        config=config,
        use_safetensors=True,
        local_files_only=True,
        dtype=torch.float32,
        output_loading_info=True,
        **options,
    )
    missing = sorted(name for name in info["missing_keys"] if not name.endswith("mask_token"))
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise ValueError(f"{folder} has no weights for {', '.join(missing[:3])}{more}.")
    return net


def _widths(config: Any) -> list[int]:
    """Width of each level after the embedding."""
    if hasattr(config, "embed_dim") and hasattr(config, "depths"):
        last = len(config.depths) - 1
        return [config.embed_dim * 2 ** min(i + 1, last) for i in range(last + 1)]
    if hasattr(config, "hidden_sizes"):
        return list(config.hidden_sizes)
    return [config.hidden_size] * config.num_hidden_layers


def _level_modules(net: nn.Module, count: int) -> list[str]:
    """Name of the module that ends each level; in a transformer, of the following norm."""
    stacks = [
        (n, m) for n, m in net.named_modules() if isinstance(m, nn.ModuleList | nn.Sequential) and len(m) == count
    ]
    name, stack = stacks[0]
    blocks: list[nn.Module] = list(stack)
    norms = [next((n for n, m in block.named_children() if isinstance(m, nn.LayerNorm)), None) for block in blocks]
    return [f"{name}.{i}" if norm is None else f"{name}.{i}.{norm}" for i, norm in enumerate(norms)]
