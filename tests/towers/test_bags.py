"""Bags of feature vectors: abmil compared with its formula, the tower, and models with every fusion block."""

from __future__ import annotations

import math

import pytest
import torch
from torch.testing import assert_close

import mmfusion
from mmfusion import registry
from mmfusion.models import save_model
from mmfusion.towers import BagsTower

LEVELLED = [n for n in mmfusion.list_components("fusion") if getattr(registry.get("fusion", n), "reads_levels", False)]


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def bags(dim=6, dtype=torch.float32):
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]]).bool()
    return torch.randn(3, 5, dim).to(dtype), mask


@pytest.mark.parametrize("gated", [True, False])
def test_abmil_is_its_formula(gated):
    aggregator = mmfusion.create_aggregator("abmil", in_features=6, hidden_size=4, gated=gated).double().eval()
    x, mask = bags()
    found = aggregator(x.double(), mask).map(torch.Tensor.detach)
    aggregator.requires_grad_(False)
    v, w = aggregator.value, aggregator.score.weight[0]
    for b in range(3):
        scores = []
        for h in x[b, mask[b]].double():
            hidden = [math.tanh(float(v.weight[i] @ h + v.bias[i])) for i in range(4)]
            if gated:
                u = aggregator.gate
                hidden = [t / (1 + math.exp(-float(u.weight[i] @ h + u.bias[i]))) for i, t in enumerate(hidden)]
            scores.append(sum(float(w[i]) * t for i, t in enumerate(hidden)))
        total = sum(math.exp(s) for s in scores)
        expected = sum(math.exp(s) / total * h for s, h in zip(scores, x[b, mask[b]].double(), strict=True))
        assert (found.pooled[b] - expected).abs().max() < 1e-6
        weights = found.attentions["slices"][b, 0, 0]
        assert_close(weights[: len(scores)].double(), torch.tensor([math.exp(s) / total for s in scores]).double())
        assert weights[len(scores) :].abs().max() == 0 if len(scores) < 5 else True


@pytest.mark.parametrize("aggregator", mmfusion.list_components("aggregator"))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_padding_never_changes_a_result(aggregator, dtype):
    tower = BagsTower(dim=6, width=8, aggregator=aggregator).eval()
    values, mask = bags(dtype=dtype)
    padded = torch.cat(
        [values.masked_fill(~mask.unsqueeze(-1), math.nan), torch.full((3, 2, 6), math.inf).to(dtype)], 1
    )
    found = tower(padded, torch.cat([mask, torch.zeros(3, 2, dtype=torch.bool)], 1))
    for b in range(3):
        alone = tower(values[b : b + 1, mask[b]])
        assert_close(found.pooled[b : b + 1], alone.pooled, rtol=1e-5, atol=1e-6)
    order = torch.tensor([2, 0, 1])
    assert_close(tower(values[order], mask[order]).pooled, tower(values, mask).pooled[order])


@pytest.mark.parametrize("fusion", [n for n in mmfusion.list_components("fusion") if n not in LEVELLED])
def test_every_fusion_block_on_top(fusion, tmp_path):
    model = mmfusion.create_model(
        "test_concat", num_classes=3, image_encoder="features", image_args={"dim": 6}, fusion=fusion
    )
    assert model.image_layout == "bags" and model.config["image_tower"] == "bags"
    values, mask = bags()
    inputs = {"bag_values": values, "bag_mask": mask, "input_ids": torch.randint(5, 60, (3, 7))}
    model.train()
    model(**inputs, image_present=torch.tensor([True, False, True])).logits.square().sum().backward()
    # blocks that read only tokens do not use the aggregator's pooled vector
    read = "image_tower" if fusion in ("co_attention", "cross_attention", "ssm") else "nothing"
    lost = [n for n, p in model.named_parameters() if p.grad is None and "text" not in n and not n.startswith(read)]
    assert lost == []
    model.eval()
    with torch.no_grad():
        whole = model(**inputs).logits
        loaded = mmfusion.create_model(f"local-dir:{save_model(model, tmp_path / 'model')}")
        assert torch.equal(loaded(**inputs).logits, whole)
        without = model(input_ids=inputs["input_ids"]).logits
        empty = model(**inputs | {"bag_mask": torch.zeros_like(mask)}).logits
        assert_close(empty, without)
        half = model(**inputs | {"bag_values": values.half()}).logits
        assert_close(half, whole, rtol=0, atol=2e-2)


def test_image_alone_and_swapped_architectures():
    model = mmfusion.create_model("test_image", image_encoder="features", image_args={"dim": 6}, aggregator="mean")
    values, mask = bags()
    assert_close(model(bag_values=values, bag_mask=mask).features[1], values[1, :2].mean(0))
    assert model.no_weight_decay() is not None and model.pretrained_cfg["architecture"] == "test_image"
    swapped = mmfusion.create_model(
        "bilstm_lite0", image_encoder="features", image_args={"dim": 6}, text_encoder=None, num_classes=2
    )
    assert type(swapped.image_tower.aggregator).__name__ == "ABMILAggregator"
    model.freeze_encoders()
    assert all(p.requires_grad for p in model.image_tower.aggregator.parameters())


def test_mistakes_are_told_in_a_line():
    for overrides, message in (
        ({"image_encoder": "features"}, "needs the width of its vectors: image_args={'dim': 1024}"),
        ({"image_encoder": "features", "image_tower": "slices"}, "image_tower 'slices' reads pictures"),
        ({"image_tower": "bags", "image_args": {"dim": 4}}, "needs image_encoder 'features', not 'test_resnet'"),
        ({"image_encoder": "features", "image_args": {"dim": 4}, "fusion": "hier_interact"}, "has no levels"),
    ):
        with pytest.raises(ValueError, match=message):
            mmfusion.create_model("test_concat", **overrides)
    tower = BagsTower(dim=6)
    with pytest.raises(ValueError, match=r"needs bag_values \(B, N, 6\), got \(2, 3, 5\)"):
        tower(torch.zeros(2, 3, 5))
    with pytest.raises(ValueError, match=r"a mask of \(2, 4\) does not fit"):
        tower(torch.zeros(2, 3, 6), torch.ones(2, 4))
