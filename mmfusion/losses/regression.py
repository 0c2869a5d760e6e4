"""Regression losses on standardized numbers; any target may be unknown."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.losses.multilabel import known_mean
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


@register("loss", "huber")
class Huber(Loss):
    """Huber loss: squared error up to ``delta``, absolute error beyond, robust to outliers (Huber 1964).

    Args:
        delta: Error at which the loss becomes linear, in standard deviations of the training rows.
    """

    tasks = ("regression",)
    form: ClassVar[str | None] = "point"

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        if delta <= 0:
            raise ValueError(f"delta={delta} is not above 0.")
        self.delta = delta

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the known numbers of the batch; labels (B, targets), NaN where unknown."""
        assert output.logits is not None
        values = at_least_float32(output.logits)
        target = torch.where(labels.isnan(), values.detach(), labels.to(values.dtype))
        return {"loss": known_mean(F.huber_loss(values, target, reduction="none", delta=self.delta), labels)}


@register("loss", "gaussian")
class GaussianLikelihood(Loss):
    """Negative log-likelihood of a normal distribution whose mean and scale the model predicts (Nix and Weigend 1994).

    The constant log(2 pi) / 2 is left out.
    """

    tasks = ("regression",)
    form: ClassVar[str | None] = "gaussian"

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the known numbers of the batch; labels (B, targets), NaN where unknown.

        Raises:
            ValueError: The output has no scales.
        """
        if output.logits is None or output.log_scales is None:
            raise ValueError("loss 'gaussian' needs log_scales; build the model with task_args={'form': 'gaussian'}.")
        values, log_scales = at_least_float32(output.logits), at_least_float32(output.log_scales)
        target = torch.where(labels.isnan(), values.detach(), labels.to(values.dtype))
        costs = log_scales + ((target - values) * torch.exp(-log_scales)).square() / 2
        return {"loss": known_mean(costs, labels)}
