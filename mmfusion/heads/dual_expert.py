"""Lesion-and-context head."""

from typing import Literal

import torch
from torch import Tensor, nn

from mmfusion.heads.base import Head
from mmfusion.layers import Mlp, at_least_float32
from mmfusion.names import check_choice
from mmfusion.outputs import Fused, FusionOutput
from mmfusion.registry import register


@register("head", "dual_expert")
class DualExpertHead(Head):
    """Lesion expert and context expert, weighted per sample: y = w y_local + (1 - w) y_global.

    ======== =========================================================================================================
    learned  [w, 1 - w] = softmax(W [f_local; f_global])
    entropy  w = sigmoid(-H(p_local)), H(p) = -sum p log p: the context counts more if the local expert is uncertain
    both     the product of the two, divided by its sum over both experts
    ======== =========================================================================================================

    ``gates`` holds ``local_expert`` (w) and ``global_expert`` (1 - w), each (B, 1).

    f_local and f_global are ``Fused.streams["local"]`` and ``["global"]``. In a model, whose streams come from the
    image, each is concatenated with the fused vector, so that both experts see the text; the model sets
    ``stream_features``. Without streams both experts read the fused vector.

    Args:
        in_features: Width of the pooled vector, and of the streams if ``stream_features`` is None.
        hidden_features: Hidden width of each expert.
        gate: ``learned``, ``entropy`` or ``both``.
        dropout: Dropout within the experts.
        stream_features: Width of streams that are concatenated with the pooled vector; None reads the streams alone.

    Raises:
        ValueError: An unknown gate; or (in the forward pass) the streams have another width, or one of them is missing.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        hidden_features: int = 256,
        gate: Literal["learned", "entropy", "both"] = "learned",
        dropout: float = 0.1,
        stream_features: int | None = None,
    ) -> None:
        super().__init__(in_features, num_classes)
        check_choice("gate", gate, ("learned", "entropy", "both"))
        self.stream_features = stream_features
        width = in_features + (stream_features or 0)
        self.local_expert = Mlp(width, hidden_features, num_classes, dropout)
        self.global_expert = Mlp(width, hidden_features, num_classes, dropout)
        self.by_entropy = gate != "learned"
        self.gate = None if gate == "entropy" else nn.Linear(2 * width, 2)

    def classify(self, fused: Fused) -> FusionOutput:
        """Streams (B, D), or pooled (B, in_features) -> logits (B, C) and the gate."""
        f_local, f_global = self.evidence(fused, "local"), self.evidence(fused, "global")
        y_local, y_global = self.local_expert(f_local), self.global_expert(f_global)
        # log w / (1 - w): a product of gates is a sum of these
        odds = at_least_float32(y_local.new_zeros(y_local.shape[0], 1))
        if self.gate is not None:
            scores = at_least_float32(self.gate(torch.cat([f_local, f_global], dim=-1)))
            odds = odds + scores[:, :1] - scores[:, 1:]
        if self.by_entropy:
            odds = odds - entropy(y_local).unsqueeze(1)
        w = odds.sigmoid()
        return FusionOutput(
            logits=w.to(y_local.dtype) * y_local + (1 - w).to(y_local.dtype) * y_global,
            gates={"local_expert": w, "global_expert": 1 - w},
        )

    def evidence(self, fused: Fused, name: str) -> Tensor:
        """Input of an expert."""
        assert fused.pooled is not None
        if fused.streams is None and self.stream_features is None:
            return fused.pooled
        stream = (fused.streams or {}).get(name)
        width = self.in_features if self.stream_features is None else self.stream_features
        if stream is None or stream.shape[-1] != width:
            found = "none" if stream is None else f"one of width {stream.shape[-1]}"
            raise ValueError(f"head 'dual_expert' needs a stream {name!r} of width {width}, but got {found}.")
        return stream if self.stream_features is None else torch.cat([stream, fused.pooled], dim=-1)


def entropy(logits: Tensor) -> Tensor:
    """H(p) = -sum p log p of the softmax distribution, (..., C) -> (...), in nats."""
    log_p = at_least_float32(logits).log_softmax(dim=-1)
    return -(log_p.exp() * log_p).sum(dim=-1)
