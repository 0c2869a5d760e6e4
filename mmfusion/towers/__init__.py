"""Towers: one modality in, ``Features`` out."""

from mmfusion.lazy import attach

__getattr__, __dir__ = attach(__name__, parts=True)
