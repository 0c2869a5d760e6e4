"""Fusion blocks compared with independent computations of their equations."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

import mmfusion
from mmfusion.outputs import Features

B, N, L, V, T, D = 3, 5, 7, 12, 10, 16


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def features():
    image, text = torch.randn(B, N, V), torch.randn(B, L, T)
    mask = torch.arange(L) < torch.tensor([[7], [4], [2]])
    return (
        Features(tokens=image, pooled=image.mean(1), levels=tuple(torch.randn(B, V) for _ in range(3))),
        Features(tokens=text, pooled=text[:, 0], mask=mask, levels=tuple(torch.randn(B, T) for _ in range(3))),
    )


@pytest.mark.parametrize("name", mmfusion.list_components("fusion"))
def test_every_block_alone(name):
    block = mmfusion.create_fusion(name, image_dim=V, text_dim=T, dim=D).eval()
    image, text = features()
    fused = block(image, text)
    assert fused.pooled.shape == (B, block.num_features)
    assert fused.image.shape == (B, block.side_dims[0]) and fused.text.shape == (B, block.side_dims[1])
    garbage = torch.where(text.mask.unsqueeze(-1), text.tokens, torch.full_like(text.tokens, 1e3))
    longer = Features(
        tokens=torch.cat([garbage, torch.full((B, 4, T), -1e3)], 1),
        pooled=text.pooled,
        mask=torch.cat([text.mask, torch.zeros(B, 4, dtype=torch.bool)], 1),
        levels=text.levels,
    )
    assert_close(block(image, longer).pooled, fused.pooled, rtol=1e-5, atol=1e-5)


def test_pooled_blocks_are_their_formulas():
    image, text = features()
    v, t = image.pooled, text.pooled
    assert torch.equal(
        mmfusion.create_fusion("concat", image_dim=V, text_dim=T)(image, text).pooled, torch.cat([v, t], -1)
    )
    for name, formula in (("add", torch.add), ("mul", torch.mul)):
        block = mmfusion.create_fusion(name, image_dim=V, text_dim=T, dim=D)
        p, q = (
            v @ block.image_proj.weight.T + block.image_proj.bias,
            t @ block.text_proj.weight.T + block.text_proj.bias,
        )
        assert_close(block(image, text).pooled, formula(p, q))
    for gate, width in (("dimension", D), ("sample", 1)):
        block = mmfusion.create_fusion("gated", image_dim=V, text_dim=T, dim=D, gate=gate)
        p, q = block.image_proj(v), block.text_proj(t)
        z = 1 / (1 + torch.exp(-(torch.cat([p, q], -1) @ block.gate.weight.T + block.gate.bias)))
        assert_close(block(image, text).pooled, z * p + (1 - z) * q)
        assert block(image, text).gates["image"].shape == (B, width)


def test_bilinear_is_the_factorised_outer_product():
    block = mmfusion.create_fusion("bilinear", image_dim=V, text_dim=T, dim=D, rank=6)
    for layer in (block.image_proj, block.text_proj):
        torch.nn.init.zeros_(layer.bias)
    image, text = features()
    core = torch.einsum("or,rv,rt->ovt", block.out.weight, block.image_proj.weight, block.text_proj.weight)
    expected = torch.einsum("ovt,bv,bt->bo", core, image.pooled, text.pooled) + block.out.bias
    assert_close(block(image, text).pooled, expected, rtol=1e-4, atol=1e-5)


def joint_attention(layer, x, y, y_mask=None, x_mask=None):
    """IBFA's attention computed sample by sample and head by head."""
    heads, d = layer.num_heads, x.shape[-1] // layer.num_heads
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        xs = x[b] if x_mask is None else x[b][x_mask[b]]
        ys = y[b] if y_mask is None else y[b][y_mask[b]]
        q, k, v = (
            layer.q(x[b]),
            torch.cat([layer.k(xs), layer.k_other(ys)]),
            torch.cat([layer.v(xs), layer.v_other(ys)]),
        )
        parts = []
        for h in range(heads):
            s = slice(h * d, (h + 1) * d)
            parts.append(torch.softmax(q[:, s] @ k[:, s].T / math.sqrt(d), -1) @ v[:, s])
        out[b] = layer.out(torch.cat(parts, -1))
    return out


@pytest.mark.parametrize("heads", [1, 4])
def test_ibfa_pooled_is_the_published_equation(heads):
    block = mmfusion.create_fusion("ibfa", image_dim=V, text_dim=D, dim=D, num_heads=heads)
    assert isinstance(block.text_proj, torch.nn.Identity)
    image = Features(pooled=torch.randn(B, V))
    text = Features(pooled=torch.randn(B, D))
    x, y = block.image_proj(image.pooled)[:, None], text.pooled[:, None]
    expected = torch.cat(
        [joint_attention(block.image_attention, x, y), joint_attention(block.text_attention, y, x)], -1
    )
    fused = block(image, text)
    assert_close(fused.pooled, expected[:, 0])
    assert_close(torch.cat([fused.image, fused.text], -1), fused.pooled)


def test_ibfa_tokens_is_the_equation_over_real_tokens():
    block = mmfusion.create_fusion("ibfa", image_dim=V, text_dim=T, dim=D, form="token")
    image, text = features()
    x, y = block.image_proj(image.tokens), block.text_proj(text.tokens)
    first = joint_attention(block.image_attention, x, y, text.mask).mean(1)
    second = joint_attention(block.text_attention, y, x, None, text.mask)
    second = torch.stack([row[keep].mean(0) for row, keep in zip(second, text.mask, strict=True)])
    assert_close(block(image, text).pooled, torch.cat([first, second], -1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("form", ["pooled", "token"])
def test_ibfa_residual_and_own_auxiliary_are_the_projected_sides(form):
    plain = mmfusion.create_fusion("ibfa", image_dim=V, text_dim=T, dim=D, form=form)
    block = mmfusion.create_fusion("ibfa", image_dim=V, text_dim=T, dim=D, form=form, residual=True, auxiliary="own")
    block.load_state_dict(plain.state_dict())
    image, text = features()
    published, fused = plain(image, text), block(image, text)
    if form == "pooled":
        v, t = block.image_proj(image.pooled), block.text_proj(text.pooled)
    else:
        v = block.image_proj(image.tokens).mean(1)
        t = torch.stack([block.text_proj(row[keep]).mean(0) for row, keep in zip(text.tokens, text.mask, strict=True)])
    assert_close(fused.image, v)
    assert_close(fused.text, t)
    assert_close(fused.pooled, published.pooled + torch.cat([v, t], -1), rtol=1e-5, atol=1e-6)
    assert fused.tokens.shape == published.tokens.shape
    assert_close(fused.attentions, published.attentions)


@pytest.mark.parametrize("form", ["pooled", "token"])
def test_ibfa_that_reads_both_sides_trains_every_parameter_and_ignores_padding(form):
    keywords = {"form": form, "residual": True, "auxiliary": "own", "max_logit": 4}
    block = mmfusion.create_fusion("ibfa", image_dim=V, text_dim=T, dim=D, num_heads=2, **keywords)
    image, text = features()
    fused = block(image, text)
    (fused.pooled.square().sum() + fused.image.square().sum() + fused.text.square().sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters())
    longer = text.replace(
        tokens=torch.cat([text.tokens, torch.full((B, 4, T), 1e3)], 1),
        mask=torch.cat([text.mask, torch.zeros(B, 4, dtype=torch.bool)], 1),
    )
    padded = block(image, longer)
    assert_close((padded.pooled, padded.text), (fused.pooled, fused.text), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("query", ["text", "image"])
def test_cross_attention_layer_is_torch_attention(query):
    block = mmfusion.create_fusion("cross_attention", image_dim=V, text_dim=T, dim=D, num_heads=4, query=query).eval()
    image, text = features()
    fused = block(image, text)
    v, t = block.image_proj(image.tokens), block.text_proj(text.tokens)
    x, context, mask = (t, v, None) if query == "text" else (v, t, text.mask)
    layer = block.layers[0]
    a = layer.attention
    split = lambda z: z.unflatten(-1, (4, -1)).transpose(1, 2)  # noqa: E731
    normed, keys = layer.norm_query(x), layer.norm_context(context)
    attended = F.scaled_dot_product_attention(
        split(a.q(normed)), split(a.k(keys)), split(a.v(keys)), attn_mask=None if mask is None else mask[:, None, None]
    )
    h = x + a.out(attended.transpose(1, 2).flatten(2))
    h = block.norm(h + layer.mlp(layer.norm_mlp(h)))
    rows = h if query == "image" else h.masked_fill(~text.mask.unsqueeze(-1), 0)
    count = N if query == "image" else text.mask.sum(1, keepdim=True)
    assert_close(fused.pooled, rows.sum(1) / count, rtol=1e-5, atol=1e-5)


def test_two_layers_and_their_weights():
    block = mmfusion.create_fusion("co_attention", image_dim=V, text_dim=T, dim=D, num_layers=2, num_heads=2).eval()
    image, text = features()
    fused = block(image, text)
    assert {k: tuple(w.shape) for k, w in fused.attentions.items()} == {
        "image_to_text.0": (B, 2, N, L),
        "text_to_image.0": (B, 2, L, N),
        "image_to_text.1": (B, 2, N, L),
        "text_to_image.1": (B, 2, L, N),
    }
    assert fused.attentions["image_to_text.1"][2, :, :, 2:].abs().max() == 0


@pytest.mark.parametrize(
    ("name", "kwargs", "words"),
    [
        ("gated", {"gate": "x"}, "gate='x'"),
        ("cross_attention", {"query": "x"}, "query='x'"),
        ("cross_attention", {"num_heads": 5}, "num_heads=5"),
        ("ibfa", {"form": "x"}, "form='x'"),
        ("ibfa", {"auxiliary": "x"}, "auxiliary='x'"),
        ("ibfa", {"max_logit": 0}, "max_logit=0"),
    ],
)
def test_wrong_values_are_told(name, kwargs, words):
    with pytest.raises(ValueError, match=words):
        mmfusion.create_fusion(name, image_dim=V, text_dim=T, dim=D, **kwargs)


def test_a_block_is_exported_on_its_own():
    block = mmfusion.create_fusion("cross_attention", image_dim=V, text_dim=T, dim=D).eval()
    image, text = features()
    program = torch.export.export(block, (image, text)).module()
    found, expected = program(image, text), block(image, text)
    assert_close(found.pooled, expected.pooled)
    assert_close(found.attentions, expected.attentions)
