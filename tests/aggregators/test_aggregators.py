"""Requirements of every registered aggregator, and comparisons with independent computations."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

import mmfusion
from mmfusion.aggregators.transformer import sinusoidal_encoding

B, S, D = 4, 6, 12
#: aggregators that ignore the order, with a single layer.
UNORDERED = ("mean", "attention", "abmil")


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture(params=mmfusion.list_components("aggregator"))
def name(request):
    return request.param


def create(name, **kwargs):
    size = {} if name == "mean" else {"hidden_size": 16}
    return mmfusion.create_aggregator(name, in_features=D, **size, **kwargs).eval()


def studies():
    """Slices absent at the end, in the middle and at the start."""
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [1, 0, 1, 1, 0, 1], [0, 0, 1, 0, 1, 0]]).bool()
    return torch.randn(B, S, D), mask


def test_shapes(name):
    aggregator = create(name)
    x, mask = studies()
    features = aggregator(x, mask)
    assert features.tokens.shape == (B, S, aggregator.num_features)
    assert features.pooled.shape == (B, aggregator.num_features)
    assert torch.equal(features.mask, mask)
    assert features.tokens[~mask].abs().max() == 0
    for weights in (features.attentions or {}).values():
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
        assert weights.masked_select(~mask[:, None, None, :]).abs().max() == 0


@pytest.mark.parametrize("garbage", [1e3, math.nan, math.inf])
def test_absent_slices_do_not_count(name, garbage):
    """A study has the same result alone without its absent slices as in a batch with arbitrary values there."""
    aggregator = create(name)
    x, mask = studies()
    padded = torch.cat([x.masked_fill(~mask.unsqueeze(-1), garbage), torch.full((B, 3, D), garbage)], 1)
    features = aggregator(padded, torch.cat([mask, torch.zeros(B, 3, dtype=torch.bool)], 1))
    for b in range(B):
        alone = aggregator(x[b : b + 1, mask[b]])
        assert_close(features.pooled[b : b + 1], alone.pooled, rtol=1e-5, atol=1e-6)
        assert_close(features.tokens[b, :S][mask[b]], alone.tokens[0], rtol=1e-5, atol=1e-6)


def test_batch_order_changes_nothing(name):
    aggregator = create(name)
    x, mask = studies()
    order = torch.tensor([2, 0, 3, 1])
    assert_close(aggregator(x[order], mask[order]).pooled, aggregator(x, mask).pooled[order])


def test_no_mask_is_a_mask_of_ones(name):
    aggregator = create(name)
    x, mask = studies()
    with_mask = aggregator(x, torch.ones_like(mask))
    assert_close(aggregator(x).pooled, with_mask.pooled)
    assert_close(aggregator(x).tokens, with_mask.tokens)


def test_one_slice(name):
    features = create(name)(torch.randn(1, 1, D), torch.ones(1, 1, dtype=torch.bool))
    assert_close(features.pooled, features.tokens[:, 0])


def test_a_study_without_slices_gives_zeros(name):
    aggregator = create(name).train()
    x, mask = studies()
    mask[1] = False
    x = torch.where(mask.unsqueeze(-1), x, math.nan).requires_grad_()
    features = aggregator(x, mask)
    assert features.pooled[1].abs().max() == 0 and features.tokens[1].abs().max() == 0
    features.pooled.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in [x, *aggregator.parameters()])


@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_parameter_gets_a_gradient(name, num_layers):
    aggregator = create(name, **({} if name in UNORDERED else {"num_layers": num_layers})).train()
    x, mask = studies()
    aggregator(x.requires_grad_(), mask).pooled.square().sum().backward()
    parameters = {"x": x, **dict(aggregator.named_parameters())}
    assert [n for n, p in parameters.items() if p.grad is None or not p.grad.isfinite().all()] == []
    assert x.grad[~mask].abs().max() == 0


def test_order_counts_where_it_should(name):
    aggregator = create(name)
    x, _ = studies()
    same = torch.allclose(aggregator(x.flip(1)).pooled, aggregator(x).pooled, atol=1e-6)
    assert same == (name in UNORDERED)


def test_torch_export_with_any_number_of_studies_and_slices(name):
    aggregator = create(name)
    x, mask = studies()
    shape = {0: torch.export.Dim("studies", max=64), 1: torch.export.Dim("slices", max=64)}
    if name == "bilstm":  # its exported program has a fixed number of slices
        shape.pop(1)
    program = torch.export.export(aggregator, (x, mask), dynamic_shapes=(shape, shape)).module()
    assert_close(program(x, mask).pooled, aggregator(x, mask).pooled)
    rows, slices = 2, S if name == "bilstm" else 9
    x, mask = torch.randn(rows, slices, D), torch.rand(rows, slices) < 0.6
    assert_close(program(x, mask).pooled, aggregator(x, mask).pooled, rtol=1e-5, atol=1e-6)


def test_autocast(name):
    aggregator = create(name)
    x, mask = studies()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        pooled = aggregator(x, mask).pooled
    assert_close(pooled.float(), aggregator(x, mask).pooled, rtol=0.1, atol=0.05)


def test_mean_is_the_mean():
    x, mask = studies()
    expected = torch.stack([row[keep].mean(0) for row, keep in zip(x, mask, strict=True)])
    assert_close(create("mean")(x, mask).pooled, expected)


@pytest.mark.parametrize("num_layers", [1, 2])
def test_bilstm_is_torchs_on_packed_sequences(num_layers):
    ours = create("bilstm", num_layers=num_layers)
    theirs = nn.LSTM(D, 16, num_layers, batch_first=True, bidirectional=True)
    for i in range(num_layers):
        for layers, suffix in ((ours.forward_layers, ""), (ours.backward_layers, "_reverse")):
            for key, value in layers[i].named_parameters():
                getattr(theirs, key.replace("l0", f"l{i}") + suffix).data = value.data
    x = torch.randn(3, S, D)
    lengths = torch.tensor([6, 2, 4])
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    features = ours(x, torch.arange(S) < lengths[:, None])
    assert_close(features.tokens, expected)
    assert_close(features.pooled, expected.sum(1) / lengths[:, None])


def test_transformer_is_torchs_encoder_layer():
    ours = create("transformer", num_heads=4)
    layer = ours.layers[0]
    layer.norm_context.load_state_dict(layer.norm_query.state_dict())
    theirs = nn.TransformerEncoderLayer(16, 4, 32, activation="gelu", norm_first=True, batch_first=True).eval()
    a = layer.attention
    theirs.self_attn.in_proj_weight.data = torch.cat([a.q.weight, a.k.weight, a.v.weight])
    theirs.self_attn.in_proj_bias.data = torch.cat([a.q.bias, a.k.bias, a.v.bias])
    theirs.self_attn.out_proj.load_state_dict(a.out.state_dict())
    theirs.linear1.load_state_dict(layer.mlp.fc1.state_dict())
    theirs.linear2.load_state_dict(layer.mlp.fc2.state_dict())
    x, _ = studies()
    mask = torch.arange(S) < torch.tensor([[6], [3], [4], [1]])
    h = theirs(ours.proj(x) + sinusoidal_encoding(torch.arange(S), 16), src_key_padding_mask=~mask)
    h = F.layer_norm(h, (16,)) * mask.unsqueeze(-1)
    assert_close(ours(x, mask).pooled, h.sum(1) / mask.sum(1, keepdim=True), rtol=1e-5, atol=1e-5)


def test_sinusoidal_encoding():
    encoding = sinusoidal_encoding(torch.tensor([[0, 3]]), 4)
    expected = [[0, 1, 0, 1], [math.sin(3), math.cos(3), math.sin(0.03), math.cos(0.03)]]
    assert_close(encoding[0], torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_pooling_is_equation_6(heads):
    aggregator = create("attention", num_heads=heads)
    x, mask = studies()
    features = aggregator(x, mask)
    for b in range(B):
        keys, values = aggregator.key(x[b, mask[b]]), aggregator.value(x[b, mask[b]])
        parts = []
        for q, k, v in zip(*(t.chunk(heads, -1) for t in (aggregator.query, keys, values)), strict=True):
            weights = torch.softmax(k @ q / math.sqrt(len(q)), 0)
            parts.append(weights @ v)
        assert_close(features.pooled[b], torch.cat(parts))
    assert features.attentions["slices"].shape == (B, heads, 1, S)


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("transformer", {"hidden_size": 15}, "hidden_size=15"),
        ("transformer", {"hidden_size": 20}, "num_heads=8"),
        ("attention", {"hidden_size": 20, "num_heads": 3}, "num_heads=3"),
    ],
)
def test_wrong_values_are_told(name, kwargs, words):
    with pytest.raises(ValueError, match=words):
        mmfusion.create_aggregator(name, in_features=D, **kwargs)


def test_wrong_shapes_are_told():
    with pytest.raises(ValueError, match=r"takes x \(B, S, D\), got \(2, 12\)"):
        create("mean")(torch.randn(2, D))
    with pytest.raises(ValueError, match=r"A mask of \(2, 5\) does not match"):
        create("mean")(torch.randn(2, 4, D), torch.ones(2, 5))
