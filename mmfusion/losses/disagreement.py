"""MIBF-Net's modality-disagreement loss (report section 5, eq. 9-10)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mmfusion.layers import at_least_float32
from mmfusion.losses.base import Loss
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register


def symmetric_kl(logits_p: Tensor, logits_q: Tensor) -> Tensor:
    """(KL(p||q) + KL(q||p)) / 2 of the softmax distributions of two logits (B, C) -> (B,), in nats."""
    log_p, log_q = (at_least_float32(x).log_softmax(-1) for x in (logits_p, logits_q))
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1) / 2


@register("loss", "mp")
class ModalityDisagreementLoss(Loss):
    """L = alpha L_img + beta L_text + gamma exp(KL) L_fusion: a case on which image and text disagree counts more
    (MIBF-Net).

    KL is :func:`symmetric_kl` of the two auxiliary heads, per sample. They answer from one modality each where the
    fusion block gives them one each: most do, and ``ibfa`` with ``auxiliary="own"``; by default its heads read both.
    The gradient flows through the weight as well, as in the equation: disagreement itself is penalised.

    With ``gate_entropy`` the weight is exp(KL) * 2 (1 - w), w the local expert's share of a ``dual_expert`` head
    (``gates["local_expert"]``): conflict and uncertainty together get more attention (report section 2.6.2). Under the
    entropy gate 1 - w = 1 - sigmoid(-H(p_local)), so that the factor is 1 for a local expert without doubt and grows
    with its entropy H; under a learned gate it is 1 at equal shares. No gradient flows through this factor: a gate
    could otherwise lower the loss by trusting the local expert.

    The published code names the streams of ``fusion="ibfa"`` by what they attend to, mmfusion by what asks: its 0.3
    weighs the text query's output, and its 0.6 the image query's. There, ``alpha=0.6, beta=0.3`` is the published
    objective. In it, exp(KL) and the cross-entropy of the fused prediction are averaged over the batch before they are
    multiplied; here, and in the equation, they are multiplied per sample.

    Args:
        alpha: weight of the image head, ``image_logits``.
        beta: weight of the text head, ``text_logits``.
        gamma: weight of the fused prediction.
        max_kl: KL is clipped here before exp, so that no sample counts more than exp(max_kl) times.
        warmup_steps: training steps over which KL fades in from nothing; 0 uses all of it from the start.
        label_smoothing: of all three cross-entropies.
        gate_entropy: multiply the weight of the fused prediction by the dual-expert gate.

    Attributes:
        step: training steps done, counted by calls in training mode; set it when a run is resumed.
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
            ValueError: the output has no auxiliary logits, or no gate where one is needed.
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
