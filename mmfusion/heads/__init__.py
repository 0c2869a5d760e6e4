"""Heads: ``Fused`` in, logits out."""

from mmfusion.heads.base import Head
from mmfusion.heads.perceptron import LinearHead, MlpHead

__all__ = ["Head", "LinearHead", "MlpHead"]
