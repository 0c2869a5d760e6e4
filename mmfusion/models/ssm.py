"""Fusion by a state space model over image and text tokens (report section 10)."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel
from mmfusion.models.fusion_resnet18 import BASELINE


@register_model
def ssm_resnet18(**overrides: Any) -> FusionModel:
    """The report's baseline with bidirectional Mamba fusion, one layer."""
    return build(overrides, **BASELINE, fusion="ssm", dim=256)


@register_model
def ssm_lite0(**overrides: Any) -> FusionModel:
    """Mamba fusion on EfficientNet-Lite0 and a two-layer BERT: trains on a laptop CPU."""
    return build(
        overrides, image_encoder="tf_efficientnet_lite0", text_encoder="bert_tiny", fusion="ssm", dim=128, head="mlp"
    )
