"""Losses: ``loss(output, labels)`` -> dict with ``"loss"``."""

from mmfusion.losses.base import Loss
from mmfusion.losses.classification import CrossEntropy
from mmfusion.losses.disagreement import ModalityDisagreementLoss, symmetric_kl

__all__ = ["CrossEntropy", "Loss", "ModalityDisagreementLoss", "symmetric_kl"]
