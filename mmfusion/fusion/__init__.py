"""Fusion blocks: image ``Features`` and text ``Features`` in, ``Fused`` out."""

from mmfusion.fusion.attention import CoAttention, CrossAttention
from mmfusion.fusion.base import FusionBlock
from mmfusion.fusion.ibfa import IBFA
from mmfusion.fusion.pooled import Add, Concat, Gated, LowRankBilinear, Mul

__all__ = [
    "IBFA",
    "Add",
    "CoAttention",
    "Concat",
    "CrossAttention",
    "FusionBlock",
    "Gated",
    "LowRankBilinear",
    "Mul",
]
