"""Attention layers compared with torch's and with the equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from mmfusion.layers import CrossAttention, JointAttention, MissingModality, attend, masked_mean
from mmfusion.outputs import Features


def test_attend_is_scaled_dot_product_attention():
    torch.manual_seed(0)
    q, k, v = torch.randn(2, 3, 4, 8), torch.randn(2, 3, 6, 8), torch.randn(2, 3, 6, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 1, 1]]).bool()
    assert_close(attend(q, k, v)[0], F.scaled_dot_product_attention(q, k, v))
    out, weights = attend(q, k, v, mask)
    assert_close(out, F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None]))
    assert weights[0, :, :, 3:].abs().max() == 0


def test_cross_attention_is_torchs_multihead_attention():
    torch.manual_seed(0)
    ours, theirs = CrossAttention(16, num_heads=4), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.in_proj_weight.data = torch.cat([ours.q.weight, ours.k.weight, ours.v.weight])
    theirs.in_proj_bias.data = torch.cat([ours.q.bias, ours.k.bias, ours.v.bias])
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, y = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    out, weights = ours(x, y, mask)
    expected, expected_weights = theirs(x, y, y, key_padding_mask=~mask, average_attn_weights=False)
    assert_close(out, expected)
    assert_close(weights, expected_weights)


def test_joint_attention_takes_vectors_as_one_token():
    torch.manual_seed(0)
    layer = JointAttention(8)
    x, y = torch.randn(2, 8), torch.randn(2, 8)
    out, weights = layer(x, y)
    assert out.shape == (2, 8) and weights.shape == (2, 1, 1, 2)
    assert_close(out, layer(x[:, None], y[:, None])[0][:, 0])
    q, own, other = layer.q(x), layer.k(x), layer.k_other(y)
    scores = torch.stack([(q * own).sum(-1), (q * other).sum(-1)], -1) / 8**0.5
    p = scores.softmax(-1)
    assert_close(out, layer.out(p[:, :1] * layer.v(x) + p[:, 1:] * layer.v_other(y)))


@pytest.mark.parametrize("heads", [1, 4])
def test_bounded_joint_attention_is_its_equation(heads):
    torch.manual_seed(0)
    layer = JointAttention(8, heads, max_logit=3.0).double()
    layer.logit_scale.data = torch.randn(heads).double()
    x, y = torch.randn(2, 3, 8).double(), torch.randn(2, 5, 8).double()
    mask = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]]).bool()
    out, weights = layer(x, y, None, mask)
    for b in range(2):
        ys = y[b, mask[b]]
        q, k = layer.q(x[b]), torch.cat([layer.k(x[b]), layer.k_other(ys)])
        v = torch.cat([layer.v(x[b]), layer.v_other(ys)])
        attended = []
        for h in range(heads):
            part = slice(h * 8 // heads, (h + 1) * 8 // heads)
            cosines = F.cosine_similarity(q[:, None, part], k[None, :, part], dim=-1)
            scores = 3.0 / (1 + torch.exp(-layer.logit_scale[h])) * cosines
            attended.append(scores.softmax(-1) @ v[:, part])
            assert_close(weights[b, h][:, : 3 + len(ys)], scores.softmax(-1))
        assert_close(out[b], layer.out(torch.cat(attended, -1)))


def test_the_bound_of_the_scores_holds_for_any_weights():
    torch.manual_seed(0)
    layer = JointAttention(2, max_logit=4).double()
    layer.logit_scale.data.fill_(50)
    for p in (layer.q, layer.k, layer.k_other):
        p.weight.data *= 1e3
    x, y = torch.randn(2, 256, 2).double()
    least = 1 / (1 + math.exp(8))
    assert 2 * least > layer(x, y)[1].min() >= least - 1e-12
    free = JointAttention(2).double()
    free.load_state_dict({k: v for k, v in layer.state_dict().items() if k != "logit_scale"})
    assert free(x, y)[1].min() < 1e-30


def test_the_scale_of_a_bounded_attention_is_learned_and_not_decayed():
    torch.manual_seed(0)
    layer = JointAttention(8, 2, max_logit=4)
    assert_close(layer.max_logit * layer.logit_scale.sigmoid(), torch.full((2,), 2.0))
    layer(torch.randn(2, 8), torch.randn(2, 8))[0].square().sum().backward()
    assert (layer.logit_scale.grad != 0).all() and layer.logit_scale.ndim == 1
    assert JointAttention(8).state_dict().keys() == layer.state_dict().keys() - {"logit_scale"}


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf")])
def test_a_bound_is_a_positive_number(value):
    with pytest.raises(ValueError, match=f"max_logit={value} is not a positive number"):
        JointAttention(8, max_logit=value)


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="dim=10 is not divisible by num_heads=4"):
        JointAttention(10, num_heads=4)


def test_masked_mean():
    x = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert_close(masked_mean(x, mask), torch.tensor([[2.0, 3.0], [0.0, 0.0]]))
    assert_close(masked_mean(x), x.mean(1))


def test_missing_modality_replaces_absent_rows_only():
    torch.manual_seed(0)
    module = MissingModality(4, level_dims=[2, 4])
    features = Features(
        tokens=torch.randn(2, 3, 4), pooled=torch.randn(2, 4), levels=(torch.randn(2, 2), torch.randn(2, 4))
    )
    out = module(features, torch.tensor([True, False]))
    assert torch.equal(out.tokens[0], features.tokens[0]) and torch.equal(out.pooled[0], features.pooled[0])
    assert torch.equal(out.pooled[1], module.token) and torch.equal(out.tokens[1, 0], module.token)
    assert out.mask.tolist() == [[True, True, True], [True, False, False]]
    assert torch.equal(out.levels[0][1], module.levels[0]) and torch.equal(out.levels[0][0], features.levels[0][0])
    assert torch.equal(out.levels[1][1], module.token), "the last level is the pooled vector"
    stand_in = module.stand_in(2)
    assert torch.equal(stand_in.pooled[0], module.token) and stand_in.mask.all()
