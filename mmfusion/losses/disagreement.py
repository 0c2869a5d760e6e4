"""Modality-disagreement loss of MIBF-Net."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


def symmetric_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """Symmetric KL divergence (KL(p||q) + KL(q||p)) / 2 of two logits (B, C) -> (B,), in nats."""
    log_p, log_q = (at_least_float32(x).log_softmax(-1) for x in (logits_p, logits_q))
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1) / 2


@register("loss", "mp")
class ModalityDisagreementLoss(Loss):
    """alpha L_img + beta L_text + gamma exp(KL) L_fusion: samples on which image and text disagree count more
    (MIBF-Net).

    KL is :func:`symmetric_kl` of the two auxiliary heads, per sample. With most fusion blocks each head reads one
    modality; with ``ibfa`` both read both modalities unless ``auxiliary="own"``. The gradient also flows through the
    weight, so that disagreement itself is penalized.

    With ``gate_entropy`` the weight is exp(KL) * 2 (1 - w), w the local expert's share of a ``dual_expert`` head
    (``gates["local_expert"]``): samples with both conflict and uncertainty count more. With the entropy gate 1 - w = 1
    - sigmoid(-H(p_local)), so that the factor is 1 for a fully confident local expert and grows with its entropy H;
    with a learned gate it is 1 at equal shares. No gradient flows through this factor, because the gate could otherwise
    lower the loss by trusting the local expert.

    The published code names the outputs of ``fusion="ibfa"`` by the side attended to, mmfusion by the query: its weight
    0.3 belongs to the text query's output, and 0.6 to the image query's. For ``ibfa``, ``alpha=0.6, beta=0.3`` is the
    published objective. The published code averages exp(KL) and the cross-entropy of the fused prediction over the
    batch before multiplying them; here, and in the published equation, they are multiplied per sample.

    Args:
        alpha: Weight of the image head, ``image_logits``.
        beta: Weight of the text head, ``text_logits``.
        gamma: Weight of the fused prediction.
        max_kl: Upper bound of KL, so that no sample counts more than exp(max_kl) times.
        warmup_steps: Training steps over which KL is ramped up from 0; 0 disables the ramp.
        label_smoothing: Label smoothing of all three cross-entropies.
        gate_entropy: Multiply the weight of the fused prediction by the dual-expert gate.

    Attributes:
        step: Number of training steps done, counted by calls in training mode; set it to resume a run.
    """

    needs_auxiliary_heads = True
    tasks = ("multiclass", "ordinal")
    form = "softmax"

    def __init__(
        self,
        alpha: float = 0.3,
        beta: float = 0.6,
        gamma: float = 1.1,
        max_kl: float = 5.0,
        warmup_steps: int = 0,
        label_smoothing: float = 0.0,
        gate_entropy: bool = False,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.gamma = alpha, beta, gamma
        self.max_kl, self.warmup_steps, self.step = max_kl, warmup_steps, 0
        self.label_smoothing, self.gate_entropy = label_smoothing, gate_entropy

    def objective(self, output: FusionOutput, labels: Tensor) -> dict[str, Tensor]:
        """Mean over the batch of the per-sample objective.

        Raises:
            ValueError: The output has no auxiliary logits, or no gate where one is needed.
        """
        if output.logits is None or output.image_logits is None or output.text_logits is None:
            raise ValueError("loss 'mp' needs image_logits and text_logits; build the model with aux_heads=True.")
        image, text, fusion = (
            F.cross_entropy(at_least_float32(logits), labels, reduction="none", label_smoothing=self.label_smoothing)
            for logits in (output.image_logits, output.text_logits, output.logits)
        )
        kl = symmetric_kl(output.image_logits, output.text_logits)
        kl = torch.nan_to_num(kl, nan=0.0, posinf=self.max_kl, neginf=0.0).clamp(max=self.max_kl)
        weight = torch.exp(self.ramp() * kl)
        if self.gate_entropy:
            gates = output.gates or {}
            if "local_expert" not in gates:
                raise ValueError("loss 'mp' with gate_entropy=True needs the gate of head='dual_expert'.")
            weight = weight * 2 * (1 - at_least_float32(gates["local_expert"].detach()).squeeze(-1))
        if self.training:
            self.step += 1
        loss = self.alpha * image + self.beta * text + self.gamma * weight * fusion
        terms = {"image_loss": image, "text_loss": text, "fusion_loss": fusion, "disagreement": kl}
        return {"loss": loss.mean()} | {name: term.detach().mean() for name, term in terms.items()}

    def ramp(self) -> float:
        """Share of KL in force, from 0 to 1."""
        return 1.0 if self.warmup_steps <= 0 else min(1.0, self.step / self.warmup_steps)
