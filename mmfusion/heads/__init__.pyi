"""Heads: ``Fused`` in, logits out."""

# made by `make docs`; do not edit
from mmfusion.heads.attention_pool import AttentionPoolHead as AttentionPoolHead
from mmfusion.heads.base import Head as Head
from mmfusion.heads.dual_expert import DualExpertHead as DualExpertHead
from mmfusion.heads.kan import KanHead as KanHead
from mmfusion.heads.moe import MoeHead as MoeHead
from mmfusion.heads.perceptron import LinearHead as LinearHead
from mmfusion.heads.perceptron import MlpHead as MlpHead
from mmfusion.heads.perceptron import ResidualMlpHead as ResidualMlpHead
