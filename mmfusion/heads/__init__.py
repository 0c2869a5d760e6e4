"""Heads: ``Fused`` in, logits out."""

from mmfusion.heads.attention_pool import AttentionPoolHead
from mmfusion.heads.base import Head
from mmfusion.heads.dual_expert import DualExpertHead
from mmfusion.heads.kan import KanHead
from mmfusion.heads.moe import MoeHead
from mmfusion.heads.perceptron import LinearHead, MlpHead
from mmfusion.heads.residual import ResidualMlpHead

__all__ = [
    "AttentionPoolHead",
    "DualExpertHead",
    "Head",
    "KanHead",
    "LinearHead",
    "MlpHead",
    "MoeHead",
    "ResidualMlpHead",
]
