"""Sequence aggregators: (B, S, D) and a mask in, tokens and a pooled vector out."""

from mmfusion.lazy import attach

__getattr__, __dir__ = attach(__name__, parts=True)
