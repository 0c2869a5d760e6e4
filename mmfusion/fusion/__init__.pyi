"""Fusion blocks: image ``Features`` and text ``Features`` in, ``Fused`` out."""

# made by `make docs`; do not edit
from mmfusion.fusion.attention import CoAttention as CoAttention
from mmfusion.fusion.attention import CrossAttention as CrossAttention
from mmfusion.fusion.base import FusionBlock as FusionBlock
from mmfusion.fusion.base import ProjectedFusion as ProjectedFusion
from mmfusion.fusion.hierarchical import Hierarchical as Hierarchical
from mmfusion.fusion.ibfa import IBFA as IBFA
from mmfusion.fusion.pooled import Add as Add
from mmfusion.fusion.pooled import Concat as Concat
from mmfusion.fusion.pooled import Gated as Gated
from mmfusion.fusion.pooled import LowRankBilinear as LowRankBilinear
from mmfusion.fusion.pooled import Mul as Mul
from mmfusion.fusion.pooled import PooledFusion as PooledFusion
from mmfusion.fusion.ssm import SSMFusion as SSMFusion
