"""Fusion blocks: image ``Features`` and text ``Features`` in, ``Fused`` out."""

# made by `make docs`; do not edit
from mmfusion.fusion.attention import CoAttention as CoAttention, CrossAttention as CrossAttention
from mmfusion.fusion.base import FusionBlock as FusionBlock, ProjectedFusion as ProjectedFusion
from mmfusion.fusion.hierarchical import Hierarchical as Hierarchical
from mmfusion.fusion.ibfa import IBFA as IBFA
from mmfusion.fusion.pooled import (
    Add as Add,
    Concat as Concat,
    Gated as Gated,
    LowRankBilinear as LowRankBilinear,
    Mul as Mul,
    PooledFusion as PooledFusion,
)
from mmfusion.fusion.ssm import SSMFusion as SSMFusion
