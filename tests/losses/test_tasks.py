"""Multilabel, ordinal and regression losses compared with their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

import mmfusion
from mmfusion.losses.ordinal import corn_log_probabilities, cumulative_log_probabilities
from mmfusion.outputs import FusionOutput

NAN = float("nan")


def value(name: str, labels: Tensor, **fields: Tensor) -> tuple[float, Tensor]:
    """Loss, and its gradient with respect to the logits."""
    logits = fields.pop("logits").clone().requires_grad_()
    args = fields.pop("args", {})
    loss = mmfusion.create_loss(name, **args)(FusionOutput(logits=logits, **fields), labels)["loss"]
    loss.backward()
    return loss.item(), logits.grad


@pytest.fixture
def logits() -> Tensor:
    return torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3


def test_binary_cross_entropy_leaves_out_what_is_unknown(logits: Tensor) -> None:
    labels = torch.tensor([[1, 0, NAN], [0, 1, 1], [NAN, NAN, NAN], [1, 1, 0], [0, NAN, 0], [1, 0, 1]]).double()
    weights = [2.0, 0.5, 3.0]
    costs = []
    for i in range(6):
        for c in range(3):
            if not math.isnan(y := labels[i, c].item()):
                p = 1 / (1 + math.exp(-logits[i, c].item()))
                costs.append(-weights[c] * y * math.log(p) - (1 - y) * math.log(1 - p))
    found, gradient = value("bce", labels, logits=logits, args={"pos_weight": weights})
    assert found == pytest.approx(sum(costs) / len(costs), abs=1e-9)
    assert torch.isfinite(gradient).all() and (gradient[labels.isnan()] == 0).all()
    balanced = mmfusion.create_loss("bce", pos_weight="balanced", class_counts=[10, 30], other_counts=[30, 10])
    assert balanced.pos_weight.tolist() == [3.0, pytest.approx(1 / 3)]
    with pytest.raises(ValueError, match="2 numbers for 3 labels"):
        balanced(FusionOutput(logits=logits), labels)


def test_asymmetric(logits: Tensor) -> None:
    labels = torch.tensor([[1, 0, NAN], [0, 1, 1], [0, 0, 0], [1, 1, 0], [0, NAN, 0], [1, 0, 1]]).double()
    costs = []
    for i in range(6):
        for c in range(3):
            if not math.isnan(y := labels[i, c].item()):
                p = 1 / (1 + math.exp(-logits[i, c].item()))
                q = max(p - 0.05, 0)
                costs.append(-((1 - p) ** 1 * math.log(p)) if y else -(q**4 * math.log(1 - q)))
    found, gradient = value("asymmetric", labels, logits=logits)
    assert found == pytest.approx(sum(costs) / len(costs), abs=1e-9) and torch.isfinite(gradient).all()
    plain = value("bce", labels, logits=logits)[0]
    same = value("asymmetric", labels, logits=logits, args={"gamma_neg": 0, "gamma_pos": 0, "clip": 0})[0]
    assert same == pytest.approx(plain, abs=1e-9), "without its three parts it is cross-entropy"


def test_corn(logits: Tensor) -> None:
    """Shi et al. 2021: output k is trained on the rows above grade k - 1; the loss is the mean over all of these."""
    labels = torch.tensor([0, 1, 2, 3, 3, 1])
    costs = []
    for k in range(3):
        for i in range(6):
            if labels[i] >= k:
                p = 1 / (1 + math.exp(-logits[i, k].item()))
                costs.append(-math.log(p if labels[i] > k else 1 - p))
    assert value("corn", labels, logits=logits)[0] == pytest.approx(sum(costs) / len(costs), abs=1e-9)
    p = [[1 / (1 + math.exp(-z)) for z in row] for row in logits.tolist()]
    grades = [[1 - a, a * (1 - b), a * b * (1 - c), a * b * c] for a, b, c in p]
    torch.testing.assert_close(
        corn_log_probabilities(logits).exp(), torch.tensor(grades, dtype=torch.float64), atol=1e-9, rtol=0
    )


def test_cumulative_link(logits: Tensor) -> None:
    falling, labels = logits.sort(dim=1, descending=True).values, torch.tensor([0, 1, 2, 3, 3, 1])
    above = [[1.0, *(1 / (1 + math.exp(-z)) for z in row), 0.0] for row in falling.tolist()]
    grades = [[row[k] - row[k + 1] for k in range(4)] for row in above]
    expected = -sum(math.log(row[y]) for row, y in zip(grades, labels.tolist(), strict=True)) / 6
    assert value("cumulative_link", labels, logits=falling)[0] == pytest.approx(expected, abs=1e-9)
    far = torch.tensor([[60.0, 59.0, -60.0]])
    assert torch.isfinite(cumulative_log_probabilities(far)).all(), "no difference of two ones"


def test_numbers(logits: Tensor) -> None:
    labels = torch.tensor([[0.5, NAN, -2], [0, 1, 1], [NAN, NAN, NAN], [9, 1, 0], [0, NAN, 0], [1, 0, 1]]).double()
    scales = logits.flip(0) / 4
    huber, gaussian = [], []
    for i in range(6):
        for c in range(3):
            if not math.isnan(y := labels[i, c].item()):
                off, s = abs(y - logits[i, c].item()), scales[i, c].item()
                huber.append(off**2 / 2 if off < 0.7 else 0.7 * (off - 0.35))
                gaussian.append(s + off**2 / (2 * math.exp(2 * s)))
    found, gradient = value("huber", labels, logits=logits, args={"delta": 0.7})
    assert found == pytest.approx(sum(huber) / len(huber), abs=1e-9) and torch.isfinite(gradient).all()
    found, gradient = value("gaussian", labels, logits=logits, log_scales=scales)
    assert found == pytest.approx(sum(gaussian) / len(gaussian), abs=1e-9) and torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", ["bce", "asymmetric", "huber"])
def test_a_batch_without_any_label_costs_nothing(name: str) -> None:
    found, gradient = value(name, torch.full((2, 3), NAN), logits=torch.ones(2, 3))
    assert found == 0 and (gradient == 0).all()
