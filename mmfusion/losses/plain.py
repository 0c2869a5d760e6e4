"""Default loss of a model that is called with labels."""

from torch import Tensor

from mmfusion.losses.classification import CrossEntropy
from mmfusion.outputs import FusionOutput


def plain_loss(output: FusionOutput, labels: Tensor) -> Tensor:
    """Cross-entropy of ``logits`` plus ``aux_loss``, a scalar; labels (B,) int64."""
    return CrossEntropy()(output, labels)["loss"]
