"""Fusion blocks: image ``Features`` and text ``Features`` in, ``Fused`` out."""

from mmfusion.lazy import attach

__getattr__, __dir__ = attach(__name__, parts=True)
