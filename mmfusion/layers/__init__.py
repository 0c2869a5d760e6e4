"""Tensor blocks that are independent of modalities."""

from mmfusion.layers.attention import CrossAttention, CrossAttentionLayer, JointAttention, attend
from mmfusion.layers.columns import CategoryEmbeddings, NumericEmbeddings
from mmfusion.layers.kan import GroupKANLinear, bspline_basis
from mmfusion.layers.missing import MissingModality
from mmfusion.layers.mlp import Mlp
from mmfusion.layers.moe import Experts, TopKRouter
from mmfusion.layers.precision import at_least_float32
from mmfusion.layers.scan import selective_scan
from mmfusion.layers.sequence import compact, masked_mean, spread, take
from mmfusion.layers.ssm import MambaBlock, SelectiveSSM, SSMEncoder

__all__ = [
    "CategoryEmbeddings",
    "CrossAttention",
    "CrossAttentionLayer",
    "Experts",
    "GroupKANLinear",
    "JointAttention",
    "MambaBlock",
    "MissingModality",
    "Mlp",
    "NumericEmbeddings",
    "SSMEncoder",
    "SelectiveSSM",
    "TopKRouter",
    "at_least_float32",
    "attend",
    "bspline_basis",
    "compact",
    "masked_mean",
    "selective_scan",
    "spread",
    "take",
]
