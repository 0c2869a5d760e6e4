"""Routing and experts, row by row."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from mmfusion.layers import Experts, TopKRouter
from mmfusion.layers.moe import SORT_FROM
from mmfusion.losses import balance_loss, switch_balance_loss


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def by_hand(x, router, experts, top_k):
    """A mixture of experts computed one sample and one expert at a time."""
    hidden, out = experts.weight1.shape[1], experts.weight2.shape[1]
    rows = []
    for row in x:
        g = torch.softmax(router.gate.weight @ row, -1)
        chosen = g.argsort(descending=True)[:top_k]
        share = g[chosen] / g[chosen].sum() if top_k > 1 else g[chosen]
        answers = []
        for k in chosen:
            h = torch.relu(experts.weight1[k] @ row + experts.bias1[k * hidden : (k + 1) * hidden])
            answers.append(experts.weight2[k] @ h + experts.bias2[k * out : (k + 1) * out])
        rows.append(sum(s * a for s, a in zip(share, answers, strict=True)))
    return torch.stack(rows)


@pytest.mark.parametrize("top_k", [1, 2, 4])
def test_both_ways_are_the_equation_with_the_same_gradients(top_k):
    router, experts = TopKRouter(6, 4, top_k), Experts(4, 6, 5, 3)
    x = torch.randn(20, 6)
    expected = by_hand(x, router, experts, top_k)
    gradients = []
    for way in (experts.ask_all, experts.ask_chosen):
        weights, chosen, probs = router(x)
        y = way(x, weights, chosen)
        assert_close(y, expected)
        assert_close(probs, F.softmax(x @ router.gate.weight.T, -1))
        gradients.append(torch.autograd.grad(y.square().sum(), [*experts.parameters(), *router.parameters()]))
    for a, b in zip(*gradients, strict=True):
        assert_close(a, b, rtol=1e-4, atol=1e-5)
        assert a.abs().sum() > 0


def test_an_expert_without_rows_has_a_gradient_of_zero():
    experts = Experts(3, 4, 5, 2)
    x, chosen = torch.randn(6, 4), torch.tensor([[0], [2]] * 3)
    experts.ask_chosen(x, torch.ones(6, 1), chosen).sum().backward()
    assert experts.weight1.grad[1].abs().max() == 0 and experts.weight1.grad[2].abs().max() > 0


def test_a_large_batch_is_sorted_and_a_small_one_is_not(monkeypatch):
    experts = Experts(4, 6, 5, 3)
    ways = []
    monkeypatch.setattr(experts, "ask_all", lambda *args: ways.append("all"))
    monkeypatch.setattr(experts, "ask_chosen", lambda *args: ways.append("chosen"))
    for rows, top_k in ((SORT_FROM // 3 - 1, 1), (SORT_FROM // 3 + 1, 1), (SORT_FROM, 4)):
        experts(torch.zeros(rows, 6), torch.ones(rows, top_k), torch.zeros(rows, top_k, dtype=torch.int64))
    assert ways == ["all", "chosen", "all"]


def test_balance_loss_is_the_equation_and_skew_costs():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]])
    assert balance_loss(probs).item() == pytest.approx((0.4 - 1 / 3) ** 2 * 2 + (0.2 - 1 / 3) ** 2)
    uniform, skewed = torch.full((8, 4), 0.25), torch.tensor([[0.97, 0.01, 0.01, 0.01]] * 8)
    assert balance_loss(uniform).item() == 0 < balance_loss(skewed).item()
    assert balance_loss(torch.eye(4)).item() == 0, "each sample may be sure, as long as all experts are used"
    assert balance_loss(torch.eye(4)[:1]).item() == pytest.approx(0.75)


def test_balance_loss_trains_a_skewed_router_to_use_all():
    router = TopKRouter(8, 4, 2)
    x = torch.randn(64, 8) + 1
    with torch.no_grad():
        router.gate.weight[0] += 1
    optimizer = torch.optim.SGD(router.parameters(), lr=1.0)
    losses = []
    for _ in range(60):
        loss = balance_loss(router(x).probs)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.3 and losses[-1] < 0.01


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_switch_balance_loss_is_that_of_mixtral(top_k):
    logits = torch.randn(33, 5, requires_grad=True)
    expected = load_balancing_loss_func((logits,), num_experts=5, top_k=top_k)
    found = switch_balance_loss(logits.softmax(-1), top_k)
    assert_close(found, expected)
    assert_close(torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits))


def test_switch_balance_loss_sees_loads_that_equation_8_does_not():
    even, one = torch.eye(4)[[0, 1, 2, 3]], torch.eye(4)[[2, 2, 2]]
    assert switch_balance_loss(even).item() == 1 and switch_balance_loss(one).item() == 4
    skewed = torch.tensor([[0.26, 0.26, 0.24, 0.24]] * 8)
    assert balance_loss(skewed).item() == pytest.approx(4e-4)
    assert switch_balance_loss(skewed, 2).item() == pytest.approx(4 * 2 * 0.26), "2 where loads are even"
    assert switch_balance_loss(skewed.double(), 2).dtype == torch.float64


def test_dropout_and_wrong_values():
    experts = Experts(2, 4, 50, 3, dropout=0.5)
    x, weights, chosen = torch.randn(5, 4), torch.ones(5, 1), torch.zeros(5, 1, dtype=torch.int64)
    assert not torch.equal(experts(x, weights, chosen), experts(x, weights, chosen))
    experts.eval()
    assert torch.equal(experts(x, weights, chosen), experts(x, weights, chosen))
    for top_k in (0, 5):
        with pytest.raises(ValueError, match=f"top_k={top_k}"):
            TopKRouter(4, 4, top_k)
