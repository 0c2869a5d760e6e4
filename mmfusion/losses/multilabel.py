"""Multilabel losses; any label may be unknown."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


def known_mean(values: Tensor, labels: Tensor) -> Tensor:
    """Mean of values (B, C) over the entries with a known label (not NaN); 0 if there is none."""
    known = ~labels.isnan()
    return torch.where(known, values, values.new_zeros(())).sum() / known.sum().clamp(min=1)


@register("loss", "bce")
class BinaryCrossEntropy(Loss):
    """Binary cross-entropy over the known labels.

    Args:
        pos_weight: Weight of present labels: one number, one per label, or ``balanced``, the ratio of rows without the
            label to rows with it.
        class_counts: Number of training rows with each label, for ``balanced``.
        other_counts: Number of training rows known to be without each label, for ``balanced``.

    Raises:
        ValueError: A weight is not above 0; or, in the forward pass, the number of weights is not the number of labels.
    """

    tasks = ("multilabel",)
    form = "sigmoid"

    def __init__(
        self,
        pos_weight: float | Sequence[float] | Literal["balanced"] | None = None,
        class_counts: Sequence[float] = (),
        other_counts: Sequence[float] = (),
    ) -> None:
        super().__init__()
        weights: float | Sequence[float]
        if isinstance(pos_weight, str):
            if pos_weight != "balanced" or not class_counts:
                raise ValueError(
                    f"pos_weight={pos_weight!r} is a number, one for each label, or 'balanced' with counts."
                )
            weights = [other / max(own, 1) or 1.0 for own, other in zip(class_counts, other_counts, strict=True)]
        else:
            weights = 1.0 if pos_weight is None else pos_weight
        self.pos_weight = torch.as_tensor(weights, dtype=torch.float64, device="cpu").flatten()
        if not (self.pos_weight > 0).all():
            raise ValueError(f"pos_weight={self.pos_weight.tolist()} is not above 0.")

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the known labels of the batch; labels (B, C) are 1, 0 or NaN."""
        assert output.logits is not None
        logits = at_least_float32(output.logits)
        if len(self.pos_weight) not in (1, logits.shape[-1]):
            raise ValueError(f"pos_weight has {len(self.pos_weight)} numbers for {logits.shape[-1]} labels.")
        weight = self.pos_weight.to(logits.dtype).to(logits.device)
        target = labels.to(logits.dtype).nan_to_num(0.0)
        values = F.binary_cross_entropy_with_logits(logits, target, pos_weight=weight, reduction="none")
        return {"loss": known_mean(values, labels)}


@register("loss", "asymmetric")
class AsymmetricLoss(Loss):
    """Asymmetric loss: down-weights easy labels, absent ones more strongly (Ridnik et al. 2021, eq. 7).

    Present labels: -(1 - p)^gamma_pos log p. Absent labels: -q^gamma_neg log(1 - q) with q = max(p - clip, 0).

    Args:
        gamma_neg: Focusing strength for absent labels.
        gamma_pos: Focusing strength for present labels.
        clip: Probability below which an absent label has no loss, in [0, 1).
    """

    tasks = ("multilabel",)
    form: ClassVar[str | None] = "sigmoid"

    def __init__(self, gamma_neg: float = 4.0, gamma_pos: float = 1.0, clip: float = 0.05) -> None:
        super().__init__()
        if gamma_neg < 0 or gamma_pos < 0 or not 0 <= clip < 1:
            raise ValueError(f"gamma_neg={gamma_neg}, gamma_pos={gamma_pos}, clip={clip}: at least 0, clip below 1.")
        self.gamma_neg, self.gamma_pos, self.clip = gamma_neg, gamma_pos, clip

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the known labels of the batch; labels (B, C) are 1, 0 or NaN."""
        assert output.logits is not None
        logits = at_least_float32(output.logits)
        target, tiny = labels.to(logits.dtype).nan_to_num(0.0), torch.finfo(logits.dtype).tiny
        log_p, p = F.logsigmoid(logits), logits.sigmoid()
        q = (p - self.clip).clamp(min=0)
        log_not_q = F.logsigmoid(-logits) if self.clip == 0 else torch.log1p(-q)
        # clamped above zero, where a power below one has no derivative
        present = -(1 - p).clamp(min=tiny).pow(self.gamma_pos) * log_p
        absent = -q.clamp(min=tiny).pow(self.gamma_neg) * log_not_q
        return {"loss": known_mean(target * present + (1 - target) * absent, labels)}
