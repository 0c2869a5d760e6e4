"""Focal loss and logit adjustment compared with their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import mmfusion
from mmfusion.losses import FocalLoss, LogitAdjustedLoss, adjust_logits
from mmfusion.outputs import FusionOutput

LABELS = torch.tensor([0, 2, 1, 2])


@pytest.fixture
def out():
    torch.manual_seed(0)
    return FusionOutput(logits=(torch.randn(4, 3) * 3).requires_grad_())


@pytest.mark.parametrize("gamma", [0, 0.5, 2, 5])
@pytest.mark.parametrize("alpha", [None, 0.25, [1.0, 2.0, 0.5]])
def test_focal_is_the_equation(out, gamma, alpha):
    expected = 0.0
    for row, y in zip(out.logits.tolist(), LABELS.tolist(), strict=True):
        p = math.exp(row[y]) / sum(map(math.exp, row))
        weight = {type(None): 1.0, float: alpha, list: (alpha or [0])[y] if isinstance(alpha, list) else 0}[type(alpha)]
        expected -= weight * (1 - p) ** gamma * math.log(p)
    loss = FocalLoss(gamma=gamma, alpha=alpha)(out, LABELS)["loss"]
    assert loss.item() == pytest.approx(expected / 4, rel=1e-5)


def test_focal_with_gamma_zero_is_cross_entropy_and_certainty_is_no_nan(out):
    assert_close(FocalLoss(gamma=0)(out, LABELS)["loss"], F.cross_entropy(out.logits, LABELS))
    sure = torch.tensor([[200.0, 0, 0]], requires_grad=True)
    FocalLoss(gamma=0.5)(FusionOutput(logits=sure), torch.tensor([0]))["loss"].backward()
    assert sure.grad.isfinite().all()


def test_logit_adjustment_is_the_equation(out):
    counts, tau = [70, 20, 10], 1.5
    pi = torch.tensor([0.7, 0.2, 0.1])
    expected = F.cross_entropy(out.logits + tau * pi.log(), LABELS)
    assert_close(mmfusion.create_loss("logit_adjusted", class_counts=counts, tau=tau)(out, LABELS)["loss"], expected)
    assert_close(LogitAdjustedLoss([0.7, 0.2, 0.1], tau=tau)(out, LABELS)["loss"], expected)
    smooth = F.cross_entropy(out.logits + tau * pi.log(), LABELS, label_smoothing=0.1)
    assert_close(LogitAdjustedLoss(counts, tau, label_smoothing=0.1)(out, LABELS)["loss"], smooth)
    assert_close(adjust_logits(out.logits, counts, tau), out.logits - tau * pi.log())
    assert_close(adjust_logits(out.logits, counts, 0), out.logits)
    assert_close(LogitAdjustedLoss([5, 5, 5])(out, LABELS)["loss"], F.cross_entropy(out.logits, LABELS))


def test_adjustment_turns_bayes_under_the_prior_into_bayes_under_equal_classes():
    likelihood, prior = torch.tensor([[0.2, 0.5, 0.3]]), torch.tensor([0.9, 0.05, 0.05])
    posterior = likelihood * prior / (likelihood * prior).sum()
    assert posterior.argmax() == 0
    assert_close(adjust_logits(posterior.log(), prior, 1.0).softmax(-1), likelihood)


def test_a_class_without_rows_counts_as_the_rarest(out):
    assert_close(LogitAdjustedLoss([8, 0, 2])(out, LABELS)["loss"], LogitAdjustedLoss([8, 2, 2])(out, LABELS)["loss"])
    assert adjust_logits(out.logits, [8, 0, 2], 1.0).isfinite().all()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda out: FocalLoss(gamma=-1), "gamma=-1"),
        (lambda out: FocalLoss(alpha=[1.0, 2.0])(out, LABELS), "alpha has 2 weights for 3"),
        (lambda out: LogitAdjustedLoss([1, -1, 3]), "class_counts"),
        (lambda out: LogitAdjustedLoss([0, 0, 0]), "class_counts"),
        (lambda out: LogitAdjustedLoss([1, 2])(out, LABELS), "2 numbers for 3 classes"),
    ],
)
def test_wrong_values_are_told(out, call, words):
    with pytest.raises(ValueError, match=words):
        call(out)
