"""Lesion and context: a whole image and a region of it (report section 2.6.2, eq. 15-18)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

RESNET50: dict[str, Any] = {
    "image_encoder": "resnet50",
    "image_tower": "global_local",
    "text_encoder": "bert_base",
    "fusion": "concat",
}
LITE0: dict[str, Any] = RESNET50 | {"image_encoder": "tf_efficientnet_lite0", "text_encoder": "bert_tiny"}
# the head weighs the streams, so the tower leaves them alike
DUAL_EXPERT: dict[str, Any] = {"image_args": {"combine": "mean"}, "head": "dual_expert", "head_args": {"gate": "both"}}
LESION_CONTEXT: dict[str, Any] = {"image_args": {"combine": "gated"}, "head": "moe"}


@register_model
def global_local_resnet50(**overrides: Any) -> FusionModel:
    """Two streams on one ResNet-50, weighted by a learned share; BERT-base."""
    return build(overrides, **RESNET50)


@register_model
def dual_expert_resnet50(**overrides: Any) -> FusionModel:
    """A lesion expert and a context expert on ResNet-50 and BERT-base, weighed by a learned and an entropy gate."""
    return build(overrides, **RESNET50, **DUAL_EXPERT)


@register_model
def lesion_context_resnet50(**overrides: Any) -> FusionModel:
    """Lesion and context of ResNet-50 joined by a gate per dimension, BERT-base, and a mixture of experts."""
    return build(overrides, **RESNET50, **LESION_CONTEXT)


@register_model
def global_local_lite0(**overrides: Any) -> FusionModel:
    """Two streams on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0)


@register_model
def dual_expert_lite0(**overrides: Any) -> FusionModel:
    """Lesion and context experts on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0, **DUAL_EXPERT)


@register_model
def lesion_context_lite0(**overrides: Any) -> FusionModel:
    """Gated lesion and context with a mixture of experts on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0, **LESION_CONTEXT)
