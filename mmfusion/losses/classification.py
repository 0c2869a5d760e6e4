"""Losses on the logits alone."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


@register("loss", "ce")
class CrossEntropy(Loss):
    """Cross-entropy, with label smoothing (Szegedy et al. 2016).

    Args:
        label_smoothing: share of the target spread over all classes, in [0, 1).
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing={label_smoothing} is not in [0, 1).")
        self.label_smoothing = label_smoothing

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the batch."""
        assert output.logits is not None
        return {"loss": F.cross_entropy(at_least_float32(output.logits), labels, label_smoothing=self.label_smoothing)}
