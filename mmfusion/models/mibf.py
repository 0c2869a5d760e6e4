"""MIBF-Net: bidirectional fusion by attention (IBFA), auxiliary heads for the disagreement loss (report section 6)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

PUBLISHED: dict[str, Any] = {"fusion": "ibfa", "head": "linear", "aux_heads": True}


@register_model
def mibf_resnet50(**overrides: Any) -> FusionModel:
    """MIBF-Net with the published network: ResNet-50 and BERT-base, pooled IBFA of width 768.

    Image weights, normalization, augmentation and optimizer are those of mmfusion; so is the loss ``mp``, whose weights
    0.3 and 0.6 the published code puts on the opposite streams.
    """
    return build(overrides, image_encoder="resnet50", text_encoder="bert_base", dim=768, **PUBLISHED)


@register_model
def mibf_convnext_base(**overrides: Any) -> FusionModel:
    """After MIBF-Net's ConvNeXt variant: ConvNeXt-B, with a self-attention over the map before pooling.

    It differs from the published code: the map is read after timm's final norm, not before it; self-attention (8 heads,
    pre-norm, with residual and feed-forward network) comes before the projection to 768, where the published one (one
    head, none of these, no output projection) comes after it; and IBFA keeps its output projection.
    """
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
