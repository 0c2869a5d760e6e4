"""Losses on the logits only."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


@register("loss", "ce")
class CrossEntropy(Loss):
    """Cross-entropy with optional label smoothing (Szegedy et al. 2016).

    Args:
        label_smoothing: Share of the target that is spread over all classes, in [0, 1).
    """

    tasks = ("multiclass", "ordinal")
    form = "softmax"

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} is not in [0, 1).")
        self.label_smoothing = label_smoothing

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the batch."""
        assert output.logits is not None
        return {"loss": F.cross_entropy(at_least_float32(output.logits), labels, label_smoothing=self.label_smoothing)}


@register("loss", "focal")
class FocalLoss(Loss):
    """Focal loss -alpha (1 - p_t)^gamma log p_t, which down-weights well-classified samples (Lin et al. 2017).

    Args:
        gamma: Focusing strength; 0 is cross-entropy.
        alpha: Weight of each class, or one weight for all; None is 1.

    Raises:
        ValueError: ``gamma`` is negative; or, in the forward pass, the number of weights is not the number of classes.
    """

    tasks = ("multiclass", "ordinal")
    form = "softmax"

    def __init__(self, gamma: float = 2.0, alpha: float | Sequence[float] | None = None) -> None:
        super().__init__()
        if gamma < 0:
            raise ValueError(f"gamma={gamma} is negative.")
        self.gamma = gamma
        self.alpha = torch.as_tensor(1.0 if alpha is None else alpha, dtype=torch.float64, device="cpu").flatten()

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the batch."""
        assert output.logits is not None
        num_classes = output.logits.shape[-1]
        if len(self.alpha) not in (1, num_classes):
            raise ValueError(f"alpha has {len(self.alpha)} weights for {num_classes} classes.")
        log_p = at_least_float32(output.logits).log_softmax(dim=-1).gather(1, labels.unsqueeze(1)).squeeze(1)
        # 1 - p without cancellation; clamped above zero, where a power below one has no derivative
        rest = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).tiny)
        alpha = self.alpha.to(log_p.dtype).to(labels.device).expand(num_classes)[labels]
        return {"loss": (-alpha * rest.pow(self.gamma) * log_p).mean()}
