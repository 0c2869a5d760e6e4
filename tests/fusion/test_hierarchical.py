"""Hierarchical fusion compared with its equations."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close
from zoo import batch, shrunk

import mmfusion
from mmfusion.outputs import Features

B, T, D = 3, 10, 16
IMAGE_DIMS = [4, 6, 12]


def block(**kwargs):
    return mmfusion.create_fusion(
        "hier_interact", image_dim=12, text_dim=T, dim=D, image_level_dims=IMAGE_DIMS, **kwargs
    )


@pytest.fixture
def sides():
    torch.manual_seed(0)
    return (
        Features(pooled=torch.zeros(B, 12), levels=tuple(torch.randn(B, d) for d in IMAGE_DIMS)),
        Features(pooled=torch.zeros(B, T), levels=tuple(torch.randn(B, T) for _ in range(3))),
    )


@pytest.mark.parametrize("weights", ["softmax", "sigmoid"])
def test_is_the_weighted_sum_of_gated_levels(sides, weights):
    part = block(weights=weights)
    image, text = sides
    start = part(image, text).gates["levels"]
    assert_close(start, torch.full((B, 3), 1 / 3 if weights == "softmax" else 0.5))
    with torch.no_grad():
        part.level_weight.copy_(torch.tensor([0.5, -1.0, 2.0]))
    fused = part(image, text)
    raw = part.level_weight
    w = raw.exp() / raw.exp().sum() if weights == "softmax" else 1 / (1 + (-raw).exp())
    expected = 0
    for i in range(3):
        gated = part.levels[i]
        v, t = gated.image_proj(image.levels[i]), gated.text_proj(text.levels[i])
        z = torch.sigmoid(gated.gate(torch.cat([v, t], -1)))
        level = z * v + (1 - z) * t
        assert_close(fused.tokens[:, i], level)
        assert_close(fused.gates[f"image.{i}"], z)
        expected = expected + w[i] * level
    assert_close(fused.pooled, expected)
    assert_close(fused.gates["levels"], w.expand(B, 3))


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit", "test_convnext"])
def test_any_image_encoder_with_a_shallow_text_encoder(encoder):
    model = mmfusion.create_model("hier_lite0", image_encoder=encoder, text_args={"vocab_size": 128}, dim=32)
    out = model(torch.randn(2, 3, 160, 160), torch.randint(5, 128, (2, 6)))
    out.logits.square().sum().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None and "missing" not in name] == []


@pytest.mark.parametrize("num_levels", [1, 2, 4])
def test_another_number_of_levels(num_levels):
    model = mmfusion.create_model("test_concat", fusion="hier_interact", fusion_args={"num_levels": num_levels}).eval()
    out = model(torch.randn(2, 3, 48, 48), torch.randint(5, 128, (2, 6)))
    assert out.gates["levels"].shape == (2, num_levels)


def test_wrong_values_are_told(sides):
    image, _ = sides
    with pytest.raises(ValueError, match="reads 3 text levels, but got 0"):
        block()(image, Features(pooled=torch.zeros(B, T)))
    with pytest.raises(ValueError, match=r"image_level_dims=\[4, 6, 12\] has to name 2 widths"):
        block(num_levels=2, text_level_dims=[T, T])
    with pytest.raises(ValueError, match="weights='x'"):
        block(weights="x")
    with pytest.raises(ValueError, match="num_levels=0"):
        mmfusion.create_fusion("hier_interact", image_dim=12, text_dim=T, num_levels=0)


def test_a_model_compiles_into_one_graph():
    model = shrunk("hier_lite0").eval()
    inputs = batch(model, rows=2)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.no_grad():
        assert_close(compiled(**inputs).logits, model(**inputs).logits)
