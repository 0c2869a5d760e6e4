"""Heads compared with their equations."""

from __future__ import annotations

import math

import pytest
import torch
from scipy.stats import entropy
from torch.nn import functional as F
from torch.testing import assert_close

import mmfusion
from mmfusion.losses import balance_loss, switch_balance_loss
from mmfusion.outputs import Fused

B, N, D, C = 4, 5, 12, 3


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def head(name, **kwargs):
    return mmfusion.create_head(name, in_features=D, num_classes=C, **kwargs).eval()


def test_residual_mlp_is_x_plus_f():
    part = head("residual_mlp", hidden_features=7, num_blocks=2)
    x = torch.randn(B, D)
    y = x
    for f in part.blocks:
        y = y + torch.relu(y @ f.fc1.weight.T + f.fc1.bias) @ f.fc2.weight.T + f.fc2.bias
    assert_close(part(x).logits, y @ part.fc.weight.T + part.fc.bias)


def test_attention_pool_is_the_equation_over_real_tokens():
    part = head("attention_pool", hidden_features=6)
    tokens, mask = torch.randn(B, N, D), torch.arange(N) < torch.tensor([[5], [1], [3], [4]])
    out = part(Fused(pooled=torch.randn(B, D), tokens=tokens, mask=mask))
    assert out.attentions["attention_pool"].shape == (B, 1, 1, N)
    for i in range(B):
        real = tokens[i][mask[i]]
        a = torch.softmax(part.k(real) @ part.query, 0)
        h = (a[:, None] * part.v(real)).sum(0)
        assert_close(out.logits[i], part.fc(h))
        assert_close(out.attentions["attention_pool"][i, 0, 0, : len(real)], a)
        assert out.attentions["attention_pool"][i, 0, 0, len(real) :].abs().sum() == 0


def test_attention_pool_takes_plain_tokens_or_one_vector():
    part = head("attention_pool")
    tokens = torch.randn(B, N, D)
    assert_close(part(tokens).logits, part(Fused(pooled=tokens.mean(1), tokens=tokens)).logits)
    single = part(tokens[:, 0])
    assert_close(single.attentions["attention_pool"], torch.ones(B, 1, 1, 1))
    assert_close(single.logits, part.fc(part.v(tokens[:, 0])))
    with pytest.raises(ValueError, match="token_features=7"):
        part(Fused(pooled=torch.zeros(B, D), tokens=torch.zeros(B, N, 7)))


@pytest.mark.parametrize("basis", ["bspline", "rational", "rbf", "chebyshev"])
def test_kan_head(basis):
    part = head("kan", basis=basis, num_groups=4, hidden_features=8)
    x = torch.randn(64, D)
    out = part(x).logits
    out.square().sum().backward()
    assert out.shape == (64, C) and all(p.grad.abs().sum() > 0 for p in part.parameters())


def test_kan_head_learns_what_a_linear_head_cannot():
    x = torch.rand(256, 2) * 4 - 2
    y = ((x.abs() > 1).sum(1) == 1).long()
    accuracy = {}
    for name, kwargs in (("linear", {}), ("kan", {"num_groups": 2, "norm": False, "hidden_features": 8})):
        torch.manual_seed(0)
        part = mmfusion.create_head(name, in_features=2, num_classes=2, **kwargs)
        optimizer = torch.optim.Adam(part.parameters(), lr=0.05)
        for _ in range(150):
            optimizer.zero_grad()
            F.cross_entropy(part(x).logits, y).backward()
            optimizer.step()
        accuracy[name] = (part(x).logits.argmax(1) == y).float().mean().item()
    assert accuracy["linear"] < 0.65 and accuracy["kan"] > 0.9


def test_moe_head_reports_the_router_and_its_balance():
    part = head("moe", num_experts=4, top_k=2, hidden_features=8, balance_weight=0.5)
    x = torch.randn(64, D)
    out = part(x)
    assert_close(out.router_probs, torch.softmax(x @ part.router.gate.weight.T, -1))
    assert_close(out.aux_loss, 0.5 * balance_loss(out.router_probs))
    mmfusion.create_loss("ce")(out, torch.arange(64) % C)["loss"].backward()
    assert all(p.grad.abs().sum() > 0 for p in part.parameters())
    assert part.experts.weight1.grad.flatten(1).abs().sum(1).min() > 0, "every expert learns"
    switch = head("moe", num_experts=4, top_k=2, hidden_features=8, balance_weight=0.5, balance="switch")
    out = switch(x)
    assert_close(out.aux_loss, 0.5 * switch_balance_loss(out.router_probs, 2))
    with pytest.raises(ValueError, match="balance='x'"):
        head("moe", balance="x")
    with pytest.raises(ValueError, match="balance_weight=-1"):
        head("moe", balance_weight=-1)


def test_moe_head_gives_the_same_for_a_small_and_a_large_batch():
    part = head("moe", num_experts=8, hidden_features=8)
    x = torch.randn(600, D)
    assert_close(part(x).logits[:50], part(x[:50]).logits)


def streams():
    return Fused(pooled=torch.randn(B, D), streams={"local": torch.randn(B, D), "global": torch.randn(B, D)})


@pytest.mark.parametrize("gate", ["learned", "entropy", "both"])
def test_dual_expert_is_the_equations(gate):
    part = head("dual_expert", gate=gate, hidden_features=6)
    fused = streams()
    f_l, f_g = fused.streams["local"], fused.streams["global"]
    y_l, y_g = part.local_expert(f_l), part.global_expert(f_g)
    out = part(fused)
    for i in range(B):
        uncertainty = entropy(torch.softmax(y_l[i], -1).detach().numpy())
        by_entropy = 1 / (1 + math.exp(uncertainty))
        learned = 0.0
        if gate != "entropy":
            learned = torch.softmax(part.gate.weight @ torch.cat([f_l[i], f_g[i]]) + part.gate.bias, -1)[0].item()
        w = {"learned": learned, "entropy": by_entropy}.get(
            gate, learned * by_entropy / (learned * by_entropy + (1 - learned) * (1 - by_entropy))
        )
        assert out.gates["local_expert"][i].item() == pytest.approx(w, rel=1e-5)
        assert out.gates["global_expert"][i].item() == pytest.approx(1 - w, rel=1e-5)
        assert_close(out.logits[i], w * y_l[i] + (1 - w) * y_g[i])


def test_an_uncertain_local_expert_hands_over_to_the_context():
    part = head("dual_expert", gate="entropy")
    with torch.no_grad():
        part.local_expert.fc2.weight.zero_()
        part.local_expert.fc2.bias.zero_()
    assert_close(part(streams()).gates["local_expert"], torch.full((B, 1), 1 / (1 + C)))  # sigmoid(-log C)
    with torch.no_grad():
        part.local_expert.fc2.bias[0] = 100
    assert_close(part(streams()).gates["local_expert"], torch.full((B, 1), 0.5))


def test_dual_expert_without_and_with_joined_streams():
    x = torch.randn(B, D)
    part = head("dual_expert")
    assert_close(part(x).logits, part(Fused(pooled=x, streams={"local": x, "global": x})).logits)
    joined = head("dual_expert", stream_features=7)
    fused = Fused(pooled=x, streams={"local": torch.randn(B, 7), "global": torch.randn(B, 7)})
    local = joined.local_expert(torch.cat([fused.streams["local"], x], -1))
    context = joined.global_expert(torch.cat([fused.streams["global"], x], -1))
    out = joined(fused)
    assert_close(out.logits, out.gates["local_expert"] * local + out.gates["global_expert"] * context)
    with pytest.raises(ValueError, match="'local' of width 7, but got none"):
        joined(x)
    with pytest.raises(ValueError, match="'local' of width 12, but got one of width 7"):
        part(fused)
    with pytest.raises(ValueError, match="gate='x'"):
        head("dual_expert", gate="x")


@pytest.mark.parametrize("name", mmfusion.list_components("head"))
def test_every_head_is_exported(name):
    part = head(name)
    x = torch.randn(B, D)
    exported = torch.export.export(part, (x,), dynamic_shapes={"x": {0: torch.export.Dim("batch", max=4096)}})
    for rows in (B, 600):
        x = torch.randn(rows, D)
        assert_close(exported.module()(x)["logits"], part(x).logits)


@pytest.mark.parametrize("fusion", mmfusion.list_components("fusion"))
def test_attention_pool_goes_with_every_block(fusion):
    model = mmfusion.create_model("test_concat", fusion=fusion, head="attention_pool").eval()
    out = model(torch.randn(2, 3, 48, 48), torch.randint(5, 128, (2, 6)))
    assert_close(out.attentions["attention_pool"].sum(-1), torch.ones(2, 1, 1))
