"""Several views of one patient, compared by cross-attention (report section 2.6.2, eq. 23-24)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel


@register_model
def multiview_resnet50(**overrides: Any) -> FusionModel:
    """The first view's ResNet-50 tokens attend to the other views'; BERT-base."""
    return build(overrides, image_encoder="resnet50", image_tower="views", text_encoder="bert_base", fusion="concat")


@register_model
def multiview_lite0(**overrides: Any) -> FusionModel:
    """Views on EfficientNet-Lite0, compared at width 256, and a two-layer BERT."""
    return build(
        overrides,
        image_encoder="tf_efficientnet_lite0",
        image_tower="views",
        image_args={"dim": 256},
        text_encoder="bert_tiny",
        fusion="concat",
    )
