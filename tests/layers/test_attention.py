"""Attention layers against torch's own and against the equations."""

from __future__ import annotations

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
