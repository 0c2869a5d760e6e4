"""Frozen parts get no gradient and keep their statistics; the rest is trained."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mmfusion
from mmfusion.models import FusionModel
from mmfusion.towers.stages import early_parts, stages_of

#: a backbone and the parameters of its stem and first two stages.
FAMILIES = {
    "test_efficientnet": ("conv_stem.", "bn1.", "blocks.0.", "blocks.1."),
    "resnet10t": ("conv1.", "bn1.", "layer1.", "layer2."),
    "test_convnext": ("stem.", "stages.0.", "stages.1."),
    "test_vit": ("cls_token", "reg_token", "pos_embed", "patch_embed.", "norm_pre.", "blocks.0.", "blocks.1."),
}


def image_model(encoder: str) -> FusionModel:
    size = {"img_size": 64} if encoder == "test_vit" else {}
    return mmfusion.create_model("image_resnet18", num_classes=3, image_encoder=encoder, image_args=size)


@pytest.mark.parametrize("encoder", FAMILIES)
def test_early_stages_stay_as_they_are(encoder: str) -> None:
    model = image_model(encoder)
    model.freeze_stages(2)
    model.train()
    backbone = model.image_tower.backbone.model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD(model.param_groups(0.1, weight_decay=0.0, encoder_lr_scale=1.0))
    for _ in range(2):
        output = model(pixel_values=torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
        nn.functional.cross_entropy(output.logits, torch.tensor([0, 1, 2, 0])).backward()
        optimizer.step()
    for name, parameter in backbone.named_parameters():
        is_early = name.startswith(FAMILIES[encoder])
        assert (parameter.grad is None) == is_early == (not parameter.requires_grad), name
    prefix = "image_tower.backbone.model."
    after = model.state_dict()
    assert all(
        torch.equal(after[n], before[n]) for n in after if n.startswith(tuple(prefix + e for e in FAMILIES[encoder]))
    )
    late = [n for n in after if n.startswith(prefix) and not n.removeprefix(prefix).startswith(FAMILIES[encoder])]
    assert sum(not torch.equal(after[n], before[n]) for n in late) > len(late) / 2
    model.eval()
    model.train()
    assert not any(module.training for module in model.frozen) and backbone.training


def test_the_backward_pass_keeps_nothing_of_frozen_stages() -> None:
    """Only tensors with the batch dimension are counted, because weights are kept, too."""
    model, images = image_model("resnet10t"), torch.randn(5, 3, 64, 64)

    def kept() -> int:
        tensors: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: tensors.append(x) or x, lambda x: x):
            model(pixel_values=images)
        return sum(x.numel() for x in tensors if x.shape[:1] == (5,))

    whole = kept()
    model.freeze_stages(1)
    assert 0 < kept() < whole / 2
    model.freeze_stages(3)
    assert model.image_tower.backbone.model.layer3(torch.zeros(1, 128, 8, 8)).grad_fn is None


def test_zero_stages_is_the_stem() -> None:
    model = image_model("test_efficientnet")
    model.freeze_stages(0)
    frozen = {name.split(".")[-2] for name, p in model.named_parameters() if not p.requires_grad}
    assert frozen == {"conv_stem", "bn1"}


def test_both_backbones_of_a_tower_are_frozen() -> None:
    model = mmfusion.create_model(
        "image_resnet18", num_classes=3, image_encoder="test_efficientnet", image_tower="global_local",
        image_args={"shared": False},
    )  # fmt: skip
    model.freeze_stages(1)
    counts = [sum(not p.requires_grad for p in backbone.parameters()) for backbone in model.image_tower.backbones]
    assert counts[0] == counts[1] > 0


def test_frozen_norm_keeps_statistics_and_weights() -> None:
    model = image_model("test_efficientnet")
    model.freeze_norm()
    model.train()
    norms = [m for m in model.image_tower.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [(m.running_mean.clone(), m.running_var.clone()) for m in norms]
    model(pixel_values=torch.randn(4, 3, 64, 64)).logits.sum().backward()
    assert len(norms) > 3 and all(not m.training and m.weight.grad is None for m in norms)
    for norm, (mean, var) in zip(norms, before, strict=True):
        assert torch.equal(norm.running_mean, mean) and torch.equal(norm.running_var, var)
    assert model.image_tower.backbone.model.conv_stem.weight.grad is not None


def test_refusals() -> None:
    with pytest.raises(ValueError, match="Of 'resnet10t' 4 stages cannot be frozen: ResNet has 4 stages"):
        image_model("resnet10t").freeze_stages(4)
    text = mmfusion.create_model("text_bert_tiny", num_classes=3)
    with pytest.raises(ValueError, match="freeze_stages needs an image tower"):
        text.freeze_stages(1)
    with pytest.raises(ValueError, match="timm does not divide Linear into stages"):
        early_parts(nn.Linear(2, 2), 1)


def test_held_encoders_are_let_go_again() -> None:
    model = image_model("test_efficientnet")
    model.freeze_stages(0)
    before = {name for name, p in model.named_parameters() if p.requires_grad}
    model.train()
    for _ in range(2):
        model.hold_encoders(True)
    assert not any(p.requires_grad for p in model.image_tower.backbone.parameters())
    assert not any(m.training for m in model.image_tower.backbone.modules()) and model.head.training
    model.hold_encoders(False)
    assert {name for name, p in model.named_parameters() if p.requires_grad} == before
    assert model.image_tower.backbone.training and not any(m.training for m in model.frozen)


def test_layers_learn_at_rates_by_hand() -> None:
    """An encoder's last layer has lr * scale, each lower one half of that; the rest has lr."""
    model = image_model("test_convnext")
    rates = {
        id(p): group["lr"] for group in model.param_groups(1.0, 0.1, 0.5, layer_decay=0.5) for p in group["params"]
    }
    assert len(rates) == len(list(model.parameters()))
    named = {name: rates[id(p)] for name, p in model.named_parameters()}
    layers = stages_of(model.image_tower.backbone.model, coarse=False)
    last = max(layers.values())
    for name, rate in named.items():
        own = name.removeprefix("image_tower.backbone.model.")
        assert rate == (1.0 if own == name else 0.5 * 0.5 ** (last - layers[own]))
    assert layers["stem.0.weight"] == 0 and layers["head.norm.weight"] == last > 4


def test_layers_of_a_text_encoder() -> None:
    model = mmfusion.create_model("text_bert_tiny", num_classes=3, text_args={"vocab_size": 64})
    groups = model.param_groups(1.0, 0.1, 1.0, layer_decay=0.5)
    names = {id(p): name.removeprefix("text_tower.backbone.") for name, p in model.named_parameters()}
    rates = {names[id(p)]: group["lr"] for group in groups for p in group["params"]}
    assert (
        rates["embeddings.word_embeddings.weight"] == 0.25
        and rates["encoder.layer.0.attention.self.query.weight"] == 0.5
    )
    assert rates["encoder.layer.1.output.dense.weight"] == 1.0
    assert groups[-1]["lr"] == 1.0 and groups[-1]["name"].startswith("rest")
