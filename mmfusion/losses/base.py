"""Base class of losses."""

from abc import abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from mmfusion.outputs import FusionOutput


class Loss(nn.Module):
    """Base class of losses: ``loss(output, labels)`` -> dict with ``"loss"`` and its terms, each a scalar.

    ``output.aux_loss`` (e.g. expert balance) is added to every objective, so that parts with an auxiliary loss work
    with any loss.

    Attributes:
        needs_auxiliary_heads: Whether the objective reads ``image_logits`` and ``text_logits``.
        tasks: Names of the supported tasks; runs of other tasks raise an error.
        form: Meaning of the outputs, one of :attr:`mmfusion.task.Task.forms`; None uses the task's first.
    """

    needs_auxiliary_heads: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)
    form: ClassVar[str | None] = None

    @abstractmethod
    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """The loss without ``aux_loss``; labels (B,) int64, of other tasks (B, ...)."""

    def forward(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Loss of a batch; labels (B,) int64, of other tasks (B, ...)."""
        terms = self.objective(output, labels)
        if output.aux_loss is not None:
            terms = {**terms, "loss": terms["loss"] + output.aux_loss, "aux_loss": output.aux_loss.detach()}
        return terms
