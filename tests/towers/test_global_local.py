"""Two streams, and the four ways of combining them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import mmfusion
from mmfusion.layers.cropping import centre_crop
from mmfusion.towers import GlobalLocalTower


@pytest.fixture
def images():
    torch.manual_seed(0)
    return torch.randn(2, 3, 32, 32), torch.randn(2, 3, 32, 32)


@pytest.mark.parametrize("combine", ["weighted", "mean", "concat", "gated"])
@pytest.mark.parametrize("shared", [True, False])
def test_combinations_are_their_equations(images, combine, shared):
    whole, region = images
    tower = GlobalLocalTower("test_resnet", combine=combine, shared=shared).eval()
    if combine == "weighted":
        tower.weight.data.fill_(0.7)
    backbones = [tower.backbone] * 2 if shared else [tower.backbone["global"], tower.backbone["local"]]
    f, g = (backbone.model(x) for backbone, x in zip(backbones, images, strict=True))
    features = tower(whole, region)
    assert_close(features.streams["global"], f)
    assert_close(features.streams["local"], g)
    if combine == "concat":
        assert features.gates is None
        assert_close(features.pooled, torch.cat([f, g], dim=1))
    else:
        share = {
            "weighted": torch.tensor(0.7).sigmoid().expand(2, 1),
            "mean": torch.full((2, 1), 0.5),
            "gated": None if tower.gate is None else tower.gate(torch.cat([f, g], dim=1)).sigmoid(),
        }[combine]
        assert_close(features.gates["global"], share)
        assert_close(features.pooled, share * f + (1 - share) * g)
    # a mean over the tokens is the pooled vector: attention over tokens sees the same weights
    assert features.tokens.shape[-1] == tower.num_features == features.pooled.shape[-1]
    assert_close(features.tokens.mean(1)[:, : f.shape[1]], features.pooled[:, : f.shape[1]], rtol=1e-4, atol=1e-5)


def test_without_a_region_the_centre_is_taken(images):
    tower = GlobalLocalTower("test_resnet", crop=0.5).eval()
    whole = images[0]
    assert_close(tower(whole).pooled, tower(whole, centre_crop(whole, 0.5)).pooled)
    by_hand = torch.nn.functional.interpolate(whole[..., 8:24, 8:24], size=(32, 32), mode="bilinear")
    assert_close(centre_crop(whole, 0.5), by_hand)


def test_a_region_of_another_size(images):
    tower = GlobalLocalTower("test_resnet").eval()
    features = tower(images[0], torch.randn(2, 3, 64, 64))
    assert features.pooled.shape == (2, tower.num_features)


def test_a_missing_image_has_learned_streams():
    torch.manual_seed(0)
    for combine, parts in (("weighted", 1), ("concat", 2)):
        model = mmfusion.create_model(
            "global_local_lite0",
            image_encoder="test_resnet",
            text_args={"vocab_size": 64},
            image_args={"combine": combine},
        ).eval()
        ids = torch.ones(2, 4, dtype=torch.long)
        token = model.image_missing.token
        width = len(token) // parts
        fused = model.forward_features(torch.randn(2, 3, 32, 32), ids, image_present=torch.tensor([True, False]))
        assert_close(fused.streams["global"][1], token[:width])
        assert_close(fused.streams["local"][1], token[-width:])
        alone = model.forward_features(input_ids=ids)
        assert_close(alone.streams["local"], fused.streams["local"][1].expand(2, -1))


def test_experts_read_the_streams():
    torch.manual_seed(0)
    model = mmfusion.create_model(
        "dual_expert_lite0", image_encoder="test_resnet", text_encoder=None, num_classes=3
    ).eval()
    out = model(torch.randn(2, 3, 32, 32))
    assert_close(out.gates["local_expert"] + out.gates["global_expert"], torch.ones(2, 1))
    assert model.head.stream_features == model.image_tower.stream_features


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [({"combine": "sum"}, "combine='sum'"), ({"crop": 0}, "crop=0"), ({"num_levels": 3}, "has no levels")],
)
def test_out_of_range(kwargs, words):
    with pytest.raises(ValueError, match=words):
        GlobalLocalTower("test_resnet", **kwargs)
    with pytest.raises(ValueError, match="takes pixel_values"):
        GlobalLocalTower("test_resnet")(torch.zeros(1, 2, 3, 32, 32))
