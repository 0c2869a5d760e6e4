"""MIBF-Net: bidirectional fusion by attention (IBFA), auxiliary heads for the disagreement loss (report section 6)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

PUBLISHED: dict[str, Any] = {"fusion": "ibfa", "head": "linear", "aux_heads": True}


@register_model
def mibf_resnet50(**overrides: Any) -> FusionModel:
    """MIBF-Net as published: ResNet-50 and BERT-base, pooled IBFA of width 768."""
    return build(overrides, image_encoder="resnet50", text_encoder="bert_base", dim=768, **PUBLISHED)


@register_model
def mibf_convnext_base(**overrides: Any) -> FusionModel:
    """MIBF-Net on ConvNeXt-B, with a self-attention over the map before pooling."""
    return build(
        overrides,
        image_encoder="convnext_base",
        image_args={"map_attention": True},
        text_encoder="bert_base",
        dim=768,
        **PUBLISHED,
    )


@register_model
def mibf_lite0(**overrides: Any) -> FusionModel:
    """MIBF-Net on EfficientNet-Lite0 and a two-layer BERT: trains on a laptop CPU."""
    return build(
        overrides,
        image_encoder="tf_efficientnet_lite0",
        text_encoder="bert_tiny",
        dim=256,
        aux_hidden=128,
        **PUBLISHED,
    )
