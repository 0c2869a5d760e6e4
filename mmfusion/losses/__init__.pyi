"""Losses: ``loss(output, labels)`` -> dict with ``"loss"``."""

# made by `make docs`; do not edit
from mmfusion.layers.moe import balance_loss as balance_loss
from mmfusion.layers.moe import switch_balance_loss as switch_balance_loss
from mmfusion.losses.base import Loss as Loss
from mmfusion.losses.classification import CrossEntropy as CrossEntropy
from mmfusion.losses.classification import FocalLoss as FocalLoss
from mmfusion.losses.disagreement import ModalityDisagreementLoss as ModalityDisagreementLoss
from mmfusion.losses.disagreement import symmetric_kl as symmetric_kl
from mmfusion.losses.logit_adjusted import LogitAdjustedLoss as LogitAdjustedLoss
from mmfusion.losses.logit_adjusted import adjust_logits as adjust_logits
from mmfusion.losses.multilabel import AsymmetricLoss as AsymmetricLoss
from mmfusion.losses.multilabel import BinaryCrossEntropy as BinaryCrossEntropy
from mmfusion.losses.ordinal import Corn as Corn
from mmfusion.losses.ordinal import CumulativeLink as CumulativeLink
from mmfusion.losses.regression import GaussianLikelihood as GaussianLikelihood
from mmfusion.losses.regression import Huber as Huber
