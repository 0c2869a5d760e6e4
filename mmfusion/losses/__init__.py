"""Losses: ``loss(output, labels)`` -> dict with ``"loss"``."""

from mmfusion.layers.moe import balance_loss
from mmfusion.losses.base import Loss
from mmfusion.losses.classification import CrossEntropy
from mmfusion.losses.disagreement import ModalityDisagreementLoss, symmetric_kl
from mmfusion.losses.focal import FocalLoss
from mmfusion.losses.logit_adjusted import LogitAdjustedLoss, adjust_logits

__all__ = [
    "CrossEntropy",
    "FocalLoss",
    "LogitAdjustedLoss",
    "Loss",
    "ModalityDisagreementLoss",
    "adjust_logits",
    "balance_loss",
    "symmetric_kl",
]
