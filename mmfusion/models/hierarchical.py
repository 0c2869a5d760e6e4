"""Hierarchical interaction: image and text fused level by level (report section 2.5)."""

from mmfusion.models.architecture import LITE0, RESNET18, arch

arch(
    "hier_resnet18",
    "ResNet-18's layers 2, 3, 4 with BERT-base's layers 4, 8, 12, gated pair by pair.",
    **RESNET18,
    fusion="hier_interact",
    dim=512,
)
arch(
    "hier_lite0",
    "Three levels of EfficientNet-Lite0 with those of a two-layer BERT.",
    **LITE0,
    fusion="hier_interact",
    dim=256,
)
