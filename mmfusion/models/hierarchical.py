"""Hierarchical interaction: image and text fused level by level (report section 2.5)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel


@register_model
def hier_resnet18(**overrides: Any) -> FusionModel:
    """ResNet-18's layers 2, 3, 4 with BERT-base's layers 4, 8, 12, gated pair by pair."""
    return build(overrides, image_encoder="resnet18", text_encoder="bert_base", fusion="hier_interact", dim=512)


@register_model
def hier_lite0(**overrides: Any) -> FusionModel:
    """Three levels of EfficientNet-Lite0 with those of a two-layer BERT."""
    return build(
        overrides, image_encoder="tf_efficientnet_lite0", text_encoder="bert_tiny", fusion="hier_interact", dim=256
    )
