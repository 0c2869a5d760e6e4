"""Mixture-of-experts head."""

from typing import Literal

from mmfusion.heads.base import Head
from mmfusion.layers.moe import Experts, TopKRouter, balance_loss, switch_balance_loss
from mmfusion.names import check_choice
from mmfusion.outputs import Fused, FusionOutput
from mmfusion.registry import register


@register("head", "moe")
class MoeHead(Head):
    """Mixture of experts, y = sum_k g_k f_k(x) over the ``top_k`` experts of g = softmax(W_g x) (Shazeer et al. 2017).

    ``router_probs`` is the full softmax (B, K); ``aux_loss`` is ``balance_weight`` times its balance loss, which every
    loss adds.

    Args:
        num_experts: Number of experts K.
        top_k: Number of experts per sample; their gate values are normalized (see
            :class:`~mmfusion.layers.TopKRouter`).
        hidden_features: Hidden width of each expert.
        balance_weight: Weight of the balance loss.
        dropout: Dropout within the experts.
        balance: ``mean`` equalizes the mean probabilities (:func:`~mmfusion.losses.balance_loss`); ``switch`` also
            uses the number of samples per expert (:func:`~mmfusion.losses.switch_balance_loss`).

    Raises:
        ValueError: ``top_k`` is not between 1 and ``num_experts``, ``balance_weight`` is negative, or ``balance`` is
            unknown.
    """

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        num_experts: int = 4,
        top_k: int = 2,
        hidden_features: int = 256,
        balance_weight: float = 0.01,
        dropout: float = 0.1,
        balance: Literal["mean", "switch"] = "mean",
    ) -> None:
        super().__init__(in_features, num_classes)
        check_choice("balance", balance, ("mean", "switch"))
        if balance_weight < 0:
            raise ValueError(f"balance_weight={balance_weight} is negative.")
        self.balance, self.balance_weight = balance, balance_weight
        self.router = TopKRouter(in_features, num_experts, top_k)
        self.experts = Experts(num_experts, in_features, hidden_features, num_classes, dropout)

    def classify(self, fused: Fused) -> FusionOutput:
        """Pooled (B, in_features) -> logits (B, C), router probabilities and balance loss."""
        weights, experts, probs = self.router(fused.pooled)
        loss = balance_loss(probs) if self.balance == "mean" else switch_balance_loss(probs, self.router.top_k)
        return FusionOutput(
            logits=self.experts(fused.pooled, weights, experts),
            router_probs=probs,
            aux_loss=self.balance_weight * loss,
        )
