"""Losses: ``loss(output, labels)`` -> dict with ``"loss"``."""

# made by `make docs`; do not edit
from mmfusion.layers.moe import balance_loss as balance_loss
from mmfusion.losses.base import Loss as Loss
from mmfusion.losses.classification import CrossEntropy as CrossEntropy, FocalLoss as FocalLoss
from mmfusion.losses.disagreement import (
    ModalityDisagreementLoss as ModalityDisagreementLoss,
    symmetric_kl as symmetric_kl,
)
from mmfusion.losses.logit_adjusted import LogitAdjustedLoss as LogitAdjustedLoss, adjust_logits as adjust_logits
