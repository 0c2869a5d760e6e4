"""MIBF-Net: bidirectional fusion by attention (IBFA), auxiliary heads for the disagreement loss (report section 6)."""

from typing import Any

from mmfusion.models.architecture import CONVNEXT_BASE, LITE0, RESNET50, arch

PUBLISHED: dict[str, Any] = {"fusion": "ibfa", "head": "linear", "aux_heads": True}

arch(
    "mibf_resnet50",
    "MIBF-Net as published: ResNet-50 and BERT-base, pooled IBFA of width 768.",
    **RESNET50,
    **PUBLISHED,
    dim=768,
)
arch(
    "mibf_convnext_base",
    "MIBF-Net on ConvNeXt-B, with a self-attention over the map before pooling.",
    **CONVNEXT_BASE,
    **PUBLISHED,
    image_args={"map_attention": True},
    dim=768,
)
arch(
    "mibf_lite0",
    "MIBF-Net on EfficientNet-Lite0 and a two-layer BERT: trains on a laptop CPU.",
    **LITE0,
    **PUBLISHED,
    dim=256,
    aux_hidden=128,
)
