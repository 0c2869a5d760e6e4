"""Fusion blocks: image ``Features`` and text ``Features`` in, ``Fused`` out."""

from mmfusion.fusion.attention import CoAttention, CrossAttention
from mmfusion.fusion.base import FusionBlock
from mmfusion.fusion.hierarchical import Hierarchical
from mmfusion.fusion.ibfa import IBFA
from mmfusion.fusion.pooled import Add, Concat, Gated, LowRankBilinear, Mul
from mmfusion.fusion.ssm import SSMFusion

__all__ = [
    "IBFA",
    "Add",
    "CoAttention",
    "Concat",
    "CrossAttention",
    "FusionBlock",
    "Gated",
    "Hierarchical",
    "LowRankBilinear",
    "Mul",
    "SSMFusion",
]
