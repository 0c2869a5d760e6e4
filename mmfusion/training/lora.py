"""Low-rank adapters of the encoders (LoRA, Hu et al. 2021) with peft; saved models have them merged."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterator
from typing import Any

from torch import nn

from mmfusion.models import FusionModel
from mmfusion.training.config import LoraConfig

#: Last part of the names of the query and value layers of attention in timm and transformers.
ATTENTION = ("qkv", "query", "value", "q_proj", "v_proj", "q_lin", "v_lin", "q", "v")


def add_adapters(model: FusionModel, config: LoraConfig) -> None:
    """Freeze the encoders and add trainable low-rank adapters to their attention layers.

    A new adapter adds zero, so the model's output is unchanged before the first step.

    Raises:
        ImportError: peft is not installed.
        ValueError: An encoder has no such layers, or reads their weights without calling them.
    """
    try:
        from peft import LoraConfig as PeftConfig, inject_adapter_in_model
    except ImportError:
        raise ImportError('train.encoder_tuning lora needs peft: pip install "mmfusion[peft]".') from None
    for modality, tower in model.towers.items():
        if modality not in ("image", "text") or not any(True for _ in tower.backbone.parameters()):
            continue  # columns have no pretrained encoder, and precomputed features have no encoder here
        targets = list(_targets(tower.backbone, config.targets or ATTENTION))
        if not targets:
            linear = sorted({n.rpartition(".")[2] for n, m in tower.backbone.named_modules() if _is_adaptable(m)})
            raise ValueError(
                f"train.encoder_tuning lora: the {modality} encoder has no layer with a name ending in "
                f"{', '.join(config.targets or ATTENTION)}; set train.lora.targets to some of {', '.join(linear)}, "
                "choose a transformer, or train.encoder_tuning full."
            )
        tower.backbone.requires_grad_(False)
        settings: dict[str, Any] = {"r": config.rank, "lora_alpha": config.alpha, "target_modules": targets}
        inject_adapter_in_model(PeftConfig(**settings), tower.backbone)


def _is_adaptable(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear | nn.Conv2d)


def _targets(backbone: nn.Module, ends: Collection[str]) -> Iterator[str]:
    """Names of the layers that get an adapter."""
    for name, module in backbone.named_modules():
        parent, _, last = name.rpartition(".")
        if last in ends and _is_adaptable(module):
            holder = backbone.get_submodule(parent)
            if getattr(holder, "q_bias", None) is not None:
                raise ValueError(
                    f"train.encoder_tuning lora: {type(holder).__name__} reads the weights of {last!r} without calling "
                    "it, so an adapter there has no effect; choose another encoder."
                )
            yield name


def without_adapters(model: FusionModel) -> FusionModel:
    """The model with adapters merged into ordinary weights; the model itself without adapters.

    The merge is done on a copy, so that training can continue.
    """
    if not any(_is_adapted(module) for module in model.modules()):
        return model
    merged = copy.deepcopy(model)
    for parent in list(merged.modules()):
        for name, child in list(parent.named_children()):
            if _is_adapted(child):
                layer: Any = child
                layer.merge(safe_merge=True)
                setattr(parent, name, layer.get_base_layer())
    return merged.requires_grad_(True)


def _is_adapted(module: nn.Module) -> Any:
    return hasattr(module, "get_base_layer") and hasattr(module, "lora_A")
