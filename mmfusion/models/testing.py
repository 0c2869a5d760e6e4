"""Tiny models for tests: timm's ``test_*`` backbones and a small vocabulary."""

from typing import Any

from mmfusion.models.architecture import arch

IMAGE: dict[str, Any] = {"image_encoder": "test_resnet"}
TEXT: dict[str, Any] = {"text_encoder": "bert_tiny", "text_args": {"vocab_size": 128}}
BOTH: dict[str, Any] = IMAGE | TEXT | {"dim": 32}
HEAD: dict[str, Any] = {"head_args": {"hidden_features": 16}}

arch("test_image", "A tiny image-only model.", IMAGE, HEAD)
arch("test_text", "A tiny text-only model.", TEXT, HEAD)
arch("test_concat", "A tiny concatenation model.", BOTH, HEAD, fusion="concat")
arch("test_attention", "A tiny cross-attention model.", BOTH, HEAD, fusion="cross_attention")
arch("test_mibf", "A tiny MIBF-Net.", BOTH, fusion="ibfa", head="linear", aux_heads=True, aux_hidden=16)
