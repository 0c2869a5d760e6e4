"""Studies of several slices: 2.5D and sequence models (report section 2.6.2, eq. 19-22)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

RESNET50: dict[str, Any] = {
    "image_encoder": "resnet50",
    "image_tower": "slices",
    "text_encoder": "bert_base",
    "fusion": "concat",
}
LITE0: dict[str, Any] = RESNET50 | {"image_encoder": "tf_efficientnet_lite0", "text_encoder": "bert_tiny"}


@register_model
def stem25d_resnet50(**overrides: Any) -> FusionModel:
    """ResNet-50 on each slice with its neighbours as channels, averaged over the study; BERT-base."""
    return build(overrides, **RESNET50, stem="2.5d", aggregator="mean")


@register_model
def bilstm_resnet50(**overrides: Any) -> FusionModel:
    """ResNet-50 per slice, then a bidirectional LSTM; BERT-base."""
    return build(overrides, **RESNET50, aggregator="bilstm")


@register_model
def seq_transformer_resnet50(**overrides: Any) -> FusionModel:
    """ResNet-50 per slice, then a transformer with position encoding; BERT-base."""
    return build(overrides, **RESNET50, aggregator="transformer")


@register_model
def seq_ssm_resnet50(**overrides: Any) -> FusionModel:
    """ResNet-50 per slice, then a selective state space model; BERT-base."""
    return build(overrides, **RESNET50, aggregator="ssm")


@register_model
def stem25d_lite0(**overrides: Any) -> FusionModel:
    """2.5D on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0, stem="2.5d", aggregator="mean")


@register_model
def bilstm_lite0(**overrides: Any) -> FusionModel:
    """EfficientNet-Lite0 per slice, then a bidirectional LSTM; a two-layer BERT."""
    return build(overrides, **LITE0, aggregator="bilstm")


@register_model
def seq_transformer_lite0(**overrides: Any) -> FusionModel:
    """EfficientNet-Lite0 per slice, then a transformer; a two-layer BERT."""
    return build(overrides, **LITE0, aggregator="transformer")


@register_model
def seq_ssm_lite0(**overrides: Any) -> FusionModel:
    """EfficientNet-Lite0 per slice, then a selective state space model; a two-layer BERT."""
    return build(overrides, **LITE0, aggregator="ssm")
