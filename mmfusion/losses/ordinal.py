"""Losses for ordered classes (grades)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


@register("loss", "corn")
class Corn(Loss):
    """Conditional ordinal regression (CORN; Shi, Cao and Raschka 2021, eq. 7): P(grade > k | grade > k - 1).

    Each of the K - 1 logits is trained on the rows above the previous grade; the loss is the mean over all of these.
    """

    tasks = ("ordinal",)
    form = "corn"

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the conditions of the batch; logits (B, K - 1), labels (B,) int64 from 0."""
        assert output.logits is not None
        logits = at_least_float32(output.logits)
        grade = torch.arange(logits.shape[-1], device=logits.device)
        asked, above = labels[:, None] >= grade, (labels[:, None] > grade).to(logits.dtype)
        costs = F.binary_cross_entropy_with_logits(logits, above, reduction="none")
        return {"loss": (costs * asked).sum() / asked.sum().clamp(min=1)}


@register("loss", "cumulative_link")
class CumulativeLink(Loss):
    """Proportional odds (McCullagh 1980): P(grade > k) = sigmoid(s - t_k) with one score s and increasing thresholds t.

    The thresholds are parameters of the model; the loss is the negative log-likelihood of the grade.
    """

    tasks = ("ordinal",)
    form = "cumulative"

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the batch; logits (B, K - 1), decreasing from left to right; labels (B,) int64 from 0."""
        assert output.logits is not None
        log_p = cumulative_log_probabilities(at_least_float32(output.logits))
        return {"loss": F.nll_loss(log_p, labels)}


def cumulative_log_probabilities(logits: Tensor) -> Tensor:
    """log P(grade = k) (B, K) from non-increasing logits (B, K - 1) of P(grade > k).

    For neighbors a >= b, sigmoid(a) - sigmoid(b) is sigmoid(a) sigmoid(-b) (1 - exp(b - a)), which does not cancel.
    """
    upper, lower = logits[:, :-1], logits[:, 1:]
    gap = (upper - lower).clamp(min=torch.finfo(logits.dtype).eps)
    middle = F.logsigmoid(upper) + F.logsigmoid(-lower) + torch.log(-torch.expm1(-gap))
    return torch.cat([F.logsigmoid(-logits[:, :1]), middle, F.logsigmoid(logits[:, -1:])], dim=1)


def corn_log_probabilities(logits: Tensor) -> Tensor:
    """log P(grade = k) (B, K) from CORN's logits (B, K - 1) of P(grade > k | grade > k - 1)."""
    above = F.logsigmoid(logits).cumsum(dim=1)
    before = torch.cat([torch.zeros_like(above[:, :1]), above], dim=1)
    return torch.cat([before[:, :-1] + F.logsigmoid(-logits), before[:, -1:]], dim=1)
