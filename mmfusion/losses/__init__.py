"""Losses: ``loss(output, labels)`` -> dict with ``"loss"``."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.layers.moe import balance_loss as balance_loss, switch_balance_loss as switch_balance_loss
    from mmfusion.losses.disagreement import symmetric_kl as symmetric_kl
    from mmfusion.losses.logit_adjusted import adjust_logits as adjust_logits

__getattr__, __dir__ = attach(__name__, parts=True)
