"""Sequence aggregators: (B, S, D) and a mask in, tokens and a pooled vector out."""

# made by `make docs`; do not edit
from mmfusion.aggregators.abmil import ABMILAggregator as ABMILAggregator
from mmfusion.aggregators.base import Aggregator as Aggregator
from mmfusion.aggregators.bilstm import BiLSTMAggregator as BiLSTMAggregator
from mmfusion.aggregators.pooling import AttentionAggregator as AttentionAggregator
from mmfusion.aggregators.pooling import MeanAggregator as MeanAggregator
from mmfusion.aggregators.ssm import SSMAggregator as SSMAggregator
from mmfusion.aggregators.transformer import TransformerAggregator as TransformerAggregator
