"""Sequence aggregators: (B, S, D) and a mask in, tokens and a pooled vector out."""

from mmfusion.aggregators.attention import AttentionAggregator
from mmfusion.aggregators.base import Aggregator
from mmfusion.aggregators.bilstm import BiLSTMAggregator
from mmfusion.aggregators.mean import MeanAggregator
from mmfusion.aggregators.ssm import SSMAggregator
from mmfusion.aggregators.transformer import TransformerAggregator

__all__ = [
    "Aggregator",
    "AttentionAggregator",
    "BiLSTMAggregator",
    "MeanAggregator",
    "SSMAggregator",
    "TransformerAggregator",
]
