"""The report's baseline and its fusion study: ResNet-18 and BERT-base under every fusion block (report table 3)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

BASELINE: dict[str, Any] = {
    "image_encoder": "resnet18",
    "text_encoder": "bert_base",
    "head": "mlp",
    "head_args": {"hidden_features": 256, "dropout": 0.5},
}


@register_model
def concat_resnet18(**overrides: Any) -> FusionModel:
    """The report's baseline: ResNet-18 and BERT-base, concatenated, MLP head."""
    return build(overrides, **BASELINE, fusion="concat")


@register_model
def add_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with element-wise addition."""
    return build(overrides, **BASELINE, fusion="add", dim=512)


@register_model
def mul_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with element-wise multiplication."""
    return build(overrides, **BASELINE, fusion="mul", dim=512)


@register_model
def gated_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with a gate per dimension."""
    return build(overrides, **BASELINE, fusion="gated", dim=512)


@register_model
def cross_attention_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with text tokens attending to the image map, one layer."""
    return build(overrides, **BASELINE, fusion="cross_attention", dim=512)


@register_model
def co_attention_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with attention in both directions."""
    return build(overrides, **BASELINE, fusion="co_attention", dim=512)


@register_model
def bilinear_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with a low-rank bilinear interaction."""
    return build(overrides, **BASELINE, fusion="bilinear", dim=512)


@register_model
def ibfa_resnet18(**overrides: Any) -> FusionModel:
    """The baseline with MIBF-Net's bidirectional fusion in its place."""
    return build(overrides, **BASELINE, fusion="ibfa", dim=512)
