"""The report's study of classification heads: the baseline with another head, all else equal (report section 2.6.1)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

RESNET18: dict[str, Any] = {"image_encoder": "resnet18", "text_encoder": "bert_base", "fusion": "concat"}
LITE0: dict[str, Any] = {"image_encoder": "tf_efficientnet_lite0", "text_encoder": "bert_tiny", "fusion": "concat"}
# a head that pools tokens needs a block that makes them; queries from the image, so that the weights are a map of it
ON_THE_MAP: dict[str, Any] = {
    "fusion": "cross_attention",
    "fusion_args": {"query": "image"},
    "head": "attention_pool",
}


@register_model
def kan_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with a Kolmogorov-Arnold head: B-splines, each shared by a group of channels."""
    return build(overrides, **RESNET18, head="kan")


@register_model
def kan_rational_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with a Kolmogorov-Arnold head of rational functions."""
    return build(overrides, **RESNET18, head="kan", head_args={"basis": "rational", "degree": 5})


@register_model
def residual_mlp_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with a residual perceptron head."""
    return build(overrides, **RESNET18, head="residual_mlp")


@register_model
def attention_pool_resnet18(**overrides: Any) -> FusionModel:
    """Image positions that have read the text, pooled by attention."""
    return build(overrides, **RESNET18 | ON_THE_MAP, dim=512)


@register_model
def moe_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with a mixture of four experts, two per sample."""
    return build(overrides, **RESNET18, head="moe")


@register_model
def moe_convnext_base(**overrides: Any) -> FusionModel:
    """ConvNeXt-B and BERT-base with a mixture of four experts, two per sample (report, ConvNeXt + MoE)."""
    return build(overrides, **RESNET18 | {"image_encoder": "convnext_base"}, head="moe")


@register_model
def kan_lite0(**overrides: Any) -> FusionModel:
    """Kolmogorov-Arnold head on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0, head="kan")


@register_model
def kan_rational_lite0(**overrides: Any) -> FusionModel:
    """Kolmogorov-Arnold head of rational functions on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0, head="kan", head_args={"basis": "rational", "degree": 5})


@register_model
def residual_mlp_lite0(**overrides: Any) -> FusionModel:
    """Residual perceptron head on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0, head="residual_mlp")


@register_model
def attention_pool_lite0(**overrides: Any) -> FusionModel:
    """Attention pooling of image positions that have read the text, on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0 | ON_THE_MAP, dim=256)


@register_model
def moe_lite0(**overrides: Any) -> FusionModel:
    """Mixture of four experts on EfficientNet-Lite0 and a two-layer BERT."""
    return build(overrides, **LITE0, head="moe")
