"""Views: the query view, the other views, and replacements of missing ones."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from mmfusion.towers import ViewsTower


@pytest.fixture(scope="module")
def tower() -> ViewsTower:
    torch.manual_seed(0)
    return ViewsTower("test_resnet", dim=16, num_heads=2).eval()


def by_hand(tower: ViewsTower, asking: torch.Tensor, others: list[torch.Tensor | None]) -> torch.Tensor:
    """One sample: the query view (3, H, W) and the others, None if missing."""
    final, (level,) = tower.backbone.model.forward_intermediates(asking[None], indices=[tower.level])
    x = tower.proj(final.flatten(2).transpose(1, 2))
    pooled = torch.nn.functional.adaptive_avg_pool2d(level, final.shape[-2:]).flatten(2).transpose(1, 2)
    context = [
        tower.level_proj(pooled)
        if other is None
        else tower.proj(tower.backbone.model.forward_features(other[None]).flatten(2).transpose(1, 2))
        for other in others
    ]
    x, _ = tower.layers[0](x, torch.cat(context, dim=1))
    return tower.norm(x).mean(1)


def test_the_first_view_asks_and_a_level_stands_in(tower):
    torch.manual_seed(1)
    views = torch.randn(4, 3, 3, 64, 64)
    mask = torch.tensor([[True, True, True], [True, False, True], [False, True, True], [False, False, True]])
    features = tower(views, mask)
    expected = [
        by_hand(tower, views[0, 0], [views[0, 1], views[0, 2]]),
        by_hand(tower, views[1, 0], [None, views[1, 2]]),
        by_hand(tower, views[2, 1], [None, views[2, 2]]),
        by_hand(tower, views[3, 2], [None, None]),
    ]
    assert_close(features.pooled, torch.cat(expected), rtol=1e-4, atol=1e-5)
    weights = features.attentions["views.0"]
    assert weights.shape == (4, 2, 4, 8)
    assert_close(weights.sum(-1), torch.ones(4, 2, 4))


def test_one_view_compares_two_scales_of_itself(tower):
    image = torch.randn(2, 3, 64, 64)
    expected = tower(torch.stack([image, torch.full_like(image, 9.0)], 1), torch.tensor([[True, False]] * 2)).pooled
    assert_close(tower(image).pooled, expected, rtol=1e-4, atol=1e-5)
    assert_close(tower(image[:, None]).pooled, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("encoder", ["test_vit", "test_convnext", "test_efficientnet"])
def test_other_backbones(encoder):
    torch.manual_seed(0)
    tower = ViewsTower(encoder, dim=16, num_heads=2).eval()
    size = tower.pretrained_cfg["input_size"][-1]
    features = tower(torch.randn(2, 2, 3, size, size), torch.tensor([[True, True], [False, True]]))
    assert features.pooled.shape == (2, 16) and features.pooled.isfinite().all()


def test_out_of_range():
    with pytest.raises(ValueError, match="'views' has no levels"):
        ViewsTower("test_resnet", num_levels=2)
    with pytest.raises(ValueError, match="not divisible"):
        ViewsTower("test_resnet", dim=10, num_heads=4)
