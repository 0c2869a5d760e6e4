"""Losses compared with their equations."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy
from torch.nn import functional as F
from torch.testing import assert_close
from zoo import labels_for

import mmfusion
from mmfusion.losses import ModalityDisagreementLoss, symmetric_kl
from mmfusion.outputs import FusionOutput

LABELS = torch.tensor([0, 2, 1, 2])


def output(**kwargs):
    torch.manual_seed(0)
    fields = {name: torch.randn(4, 3, requires_grad=True) for name in ("logits", "image_logits", "text_logits")}
    return FusionOutput(**{**fields, **kwargs})


def test_symmetric_kl_is_scipys():
    out = output()
    p, q = out.image_logits.softmax(-1).detach().numpy(), out.text_logits.softmax(-1).detach().numpy()
    expected = [(entropy(a, b) + entropy(b, a)) / 2 for a, b in zip(p, q, strict=True)]
    assert_close(symmetric_kl(out.image_logits, out.text_logits).detach(), torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_mp_is_the_equation():
    out = output()
    expected = 0.0
    for i, y in enumerate(LABELS.tolist()):
        p, q, r = (torch.softmax(x[i], -1) for x in (out.image_logits, out.text_logits, out.logits))
        kl = 0.5 * sum(float(a * math.log(a / b) + b * math.log(b / a)) for a, b in zip(p, q, strict=True))
        expected += -0.3 * math.log(p[y]) - 0.6 * math.log(q[y]) - 1.1 * math.exp(kl) * math.log(r[y])
    loss = mmfusion.create_loss("mp")(out, LABELS)
    assert loss["loss"].item() == pytest.approx(expected / 4, rel=1e-5)


def test_mp_weight_is_clipped_and_finite():
    far = output(image_logits=torch.tensor([[1e4, 0, 0.0]] * 4), text_logits=torch.tensor([[0, 0, 1e4]] * 4))
    loss = ModalityDisagreementLoss(alpha=0, beta=0, gamma=1, max_kl=2.0)(far, LABELS)
    plain = F.cross_entropy(far.logits, LABELS)
    assert loss["loss"].item() == pytest.approx(math.exp(2.0) * plain.item(), rel=1e-5)
    broken = output(image_logits=torch.full((4, 3), float("nan")))
    kl = ModalityDisagreementLoss(alpha=0, beta=0)(broken, LABELS)
    assert kl["disagreement"].item() == 0


def test_mp_fades_the_disagreement_in():
    loss = ModalityDisagreementLoss(alpha=0, beta=0, gamma=1, warmup_steps=4)
    out = output()
    per_sample = F.cross_entropy(out.logits, LABELS, reduction="none")
    kl = symmetric_kl(out.image_logits, out.text_logits)
    for ramp in (0, 0.25, 0.5, 0.75, 1, 1):
        assert loss(out, LABELS)["loss"].item() == pytest.approx(
            (torch.exp(ramp * kl) * per_sample).mean().item(), rel=1e-5
        )
    assert loss.step == 6
    loss.eval()
    loss(out, LABELS)
    assert loss.step == 6, "evaluation is no training step"


def test_mp_with_the_gate_counts_conflict_and_doubt():
    share = torch.tensor([[0.5], [0.1], [0.25], [0.4]], requires_grad=True)
    out = output(gates={"local_expert": share})
    kl = symmetric_kl(out.image_logits, out.text_logits)
    fusion = F.cross_entropy(out.logits, LABELS, reduction="none")
    factor = torch.tensor([1.0, 1.8, 1.5, 1.2])  # 2 (1 - w): a certain local expert has w = 1/2 under the entropy gate
    loss = ModalityDisagreementLoss(alpha=0, beta=0, gamma=1, gate_entropy=True)
    total = loss(out, LABELS)["loss"]
    assert_close(total, (kl.exp() * factor * fusion).mean())
    total.backward()
    assert share.grad is None, "the gate does not learn to lower the weight"
    with pytest.raises(ValueError, match="dual_expert"):
        loss(output(), LABELS)


def test_mp_without_auxiliary_heads_is_told():
    with pytest.raises(ValueError, match="aux_heads=True"):
        mmfusion.create_loss("mp")(FusionOutput(logits=torch.zeros(4, 3)), LABELS)


def test_label_smoothing_is_the_mixture():
    out = output()
    log_p = out.logits.log_softmax(-1)
    expected = -(0.9 * log_p[range(4), LABELS] + 0.1 * log_p.mean(-1)).mean()
    assert_close(mmfusion.create_loss("ce", label_smoothing=0.1)(out, LABELS)["loss"], expected)
    with pytest.raises(ValueError, match="label_smoothing=1"):
        mmfusion.create_loss("ce", label_smoothing=1)


@pytest.mark.parametrize("name", mmfusion.list_components("loss"))
def test_every_loss_adds_the_auxiliary_loss_and_has_gradients(name):
    kwargs = {"class_counts": [5, 3, 2]} if name == "logit_adjusted" else {}
    loss = mmfusion.create_loss(name, **kwargs)
    labels = labels_for(loss, *output().logits.shape)
    scales = {"log_scales": torch.zeros_like(output().logits)} if "regression" in loss.tasks else {}
    plain = loss(output(**scales), labels)["loss"]
    out = output(aux_loss=torch.tensor(0.25), **scales)
    total = loss(out, labels)["loss"]
    assert_close(total, plain + 0.25)
    total.backward()
    assert out.logits.grad.abs().sum() > 0
    if loss.needs_auxiliary_heads:
        assert out.image_logits.grad.abs().sum() > 0 and out.text_logits.grad.abs().sum() > 0
