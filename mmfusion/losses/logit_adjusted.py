"""Logit adjustment for long-tailed classes, in training or post hoc."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


def log_priors(class_counts: Sequence[float] | Tensor) -> Tensor:
    """Log priors log pi_c (C,) from counts or shares; a class without rows counts like the rarest class that has some.

    Raises:
        ValueError: A count is negative or not finite, or all are zero.
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64, device="cpu")
    if not (counts.isfinite().all() and (counts >= 0).all() and (counts > 0).any()):
        raise ValueError(f"class_counts={counts.tolist()} are not counts of rows: none negative, some positive.")
    counts = counts.where(counts > 0, counts[counts > 0].min())
    return (counts / counts.sum()).log()


def adjust_logits(logits: Tensor, class_counts: Sequence[float] | Tensor, tau: float = 1.0) -> Tensor:
    """Post-hoc logit adjustment z_c - tau log pi_c for a model trained without it (Menon et al. 2021).

    Args:
        logits: (..., C).
        class_counts: Number of rows of each class in the training data (not in the data to predict).
        tau: Strength; 0 leaves the logits unchanged.

    Returns:
        (..., C).

    Raises:
        ValueError: The number of counts is not the number of classes.
    """
    return logits - tau * _fitting(log_priors(class_counts), logits)


def _fitting(priors: Tensor, logits: Tensor) -> Tensor:
    if len(priors) != logits.shape[-1]:
        raise ValueError(f"class_counts has {len(priors)} numbers for {logits.shape[-1]} classes.")
    return priors.to(logits.dtype).to(logits.device)  # two steps: not every device has float64


@register("loss", "logit_adjusted")
class LogitAdjustedLoss(Loss):
    """Cross-entropy of z_c + tau log pi_c, so that the logits z do not contain the prior (Menon et al. 2021).

    The training form of :func:`adjust_logits`. The logits are already adjusted at inference; do not use both.

    Args:
        class_counts: Number of rows of each class in the training data.
        tau: Strength; 0 is cross-entropy.
        label_smoothing: Share of the target spread over all classes, in [0, 1).

    Raises:
        ValueError: A count is negative, all are zero, or (in the forward pass) their number is not the number of
            classes; the label smoothing is out of range.
    """

    tasks = ("multiclass", "ordinal")
    form = "softmax"

    def __init__(self, class_counts: Sequence[float], tau: float = 1.0, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} is not in [0, 1).")
        self.tau, self.label_smoothing = tau, label_smoothing
        self.log_priors = log_priors(class_counts)

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the batch."""
        assert output.logits is not None
        logits = at_least_float32(output.logits)
        adjusted = logits + self.tau * _fitting(self.log_priors, logits)
        return {"loss": F.cross_entropy(adjusted, labels, label_smoothing=self.label_smoothing)}
