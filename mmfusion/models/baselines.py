"""Unimodal baselines, which every fusion result stands beside."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel


@register_model
def image_resnet18(**overrides: Any) -> FusionModel:
    """ResNet-18 on the image alone, with the report's MLP head."""
    return build(overrides, image_encoder="resnet18")


@register_model
def image_resnet50(**overrides: Any) -> FusionModel:
    """ResNet-50 on the image alone."""
    return build(overrides, image_encoder="resnet50")


@register_model
def image_convnext_base(**overrides: Any) -> FusionModel:
    """ConvNeXt-B on the image alone."""
    return build(overrides, image_encoder="convnext_base")


@register_model
def image_lite0(**overrides: Any) -> FusionModel:
    """EfficientNet-Lite0 on the image alone: trains on a laptop CPU."""
    return build(overrides, image_encoder="tf_efficientnet_lite0")


@register_model
def text_bert_base(**overrides: Any) -> FusionModel:
    """BERT-base on the text alone."""
    return build(overrides, text_encoder="bert_base")


@register_model
def text_bert_tiny(**overrides: Any) -> FusionModel:
    """A two-layer, 128-wide BERT on the text alone, trained from scratch."""
    return build(overrides, text_encoder="bert_tiny")


@register_model
def text_minilm(**overrides: Any) -> FusionModel:
    """MiniLM-L6 on the text alone."""
    return build(overrides, text_encoder="minilm")
