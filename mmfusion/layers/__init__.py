"""Tensor blocks that know nothing of modalities."""

from mmfusion.layers.attention import CrossAttention, CrossAttentionLayer, JointAttention, attend
from mmfusion.layers.missing import MissingModality
from mmfusion.layers.mlp import Mlp
from mmfusion.layers.pooling import masked_mean

__all__ = [
    "CrossAttention",
    "CrossAttentionLayer",
    "JointAttention",
    "MissingModality",
    "Mlp",
    "attend",
    "masked_mean",
]
