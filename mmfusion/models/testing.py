"""Tiny models for tests: timm's ``test_*`` backbones and a small vocabulary."""

from __future__ import annotations

from typing import Any

from mmfusion.models.factory import build, register_model
from mmfusion.models.fusion_model import FusionModel

TINY: dict[str, Any] = {
    "image_encoder": "test_resnet",
    "text_encoder": "bert_tiny",
    "text_args": {"vocab_size": 128},
    "dim": 32,
    "head_args": {"hidden_features": 16},
}


@register_model
def test_image(**overrides: Any) -> FusionModel:
    """A tiny image-only model."""
    return build(overrides, image_encoder="test_resnet", head_args={"hidden_features": 16})


@register_model
def test_text(**overrides: Any) -> FusionModel:
    """A tiny text-only model."""
    return build(overrides, text_encoder="bert_tiny", text_args={"vocab_size": 128}, head_args={"hidden_features": 16})


@register_model
def test_concat(**overrides: Any) -> FusionModel:
    """A tiny concatenation model."""
    return build(overrides, **TINY, fusion="concat")


@register_model
def test_attention(**overrides: Any) -> FusionModel:
    """A tiny cross-attention model."""
    return build(overrides, **TINY, fusion="cross_attention")


@register_model
def test_mibf(**overrides: Any) -> FusionModel:
    """A tiny MIBF-Net."""
    return build(overrides, **TINY | {"head": "linear", "head_args": {}}, fusion="ibfa", aux_heads=True, aux_hidden=16)
