from __future__ import annotations

import sys

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from torch import nn
from zoo import batch, shrunk

import mmfusion
from mmfusion.explanation import image_relevance
from mmfusion.outputs import Features, FusionOutput
from mmfusion.towers import Tower


def one(model: mmfusion.FusionModel, size: int = 64) -> dict[str, torch.Tensor]:
    """One random sample."""
    return batch(model, rows=1, size=size)


def test_image_only_model_equals_captum() -> None:
    model = shrunk("test_image").eval()
    inputs = one(model)
    cam = LayerGradCam(lambda x: model(pixel_values=x).logits, model.image_tower.backbone.model.layer4)
    expected = cam.attribute(inputs["pixel_values"], 2)[0, 0]
    (found,) = image_relevance(model, inputs, 2)
    torch.testing.assert_close(found, expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["test_concat", "test_attention", "test_mibf"])
def test_two_inputs_equal_the_definition(name: str) -> None:
    model = shrunk(name).eval()
    inputs, kept = one(model, 96), []
    layer = model.image_tower.backbone.model.layer4
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    (gradient,) = torch.autograd.grad(model(**inputs).logits[0, 1], kept)
    handle.remove()
    expected = torch.einsum("k,khw->hw", gradient[0].mean(dim=(1, 2)), kept[0][0])
    (found,) = image_relevance(model, inputs, 1)
    assert found.shape == (3, 3)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-9)


class TinyTower(Tower):
    """Two 1 x 1 convolution channels of the image and their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> Features:
        return Features(pooled=self.conv(x).relu().mean(dim=(2, 3)))


class TinyModel(nn.Module):
    """logits = W [mean relu(conv(image)); text length]."""

    def __init__(self) -> None:
        super().__init__()
        self.image_tower = TinyTower()
        self.head = nn.Linear(3, 2)

    def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> FusionOutput:
        length = (input_ids > 0).sum(dim=1, keepdim=True).float()
        return FusionOutput(logits=self.head(torch.cat([self.image_tower(pixel_values).pooled, length], dim=1)))


def test_a_finer_level() -> None:
    model = shrunk("test_concat").eval()
    inputs, kept = one(model), []
    handle = model.image_tower.backbone.model.layer3.register_forward_hook(
        lambda module, args, output: kept.append(output)
    )
    (gradient,) = torch.autograd.grad(model(**inputs).logits[0, 1], kept)
    handle.remove()
    (found,) = image_relevance(model, inputs, 1, level=-2)
    expected = (gradient.mean(dim=(2, 3), keepdim=True) * kept[0]).sum(dim=1)[0]
    assert found.shape == (4, 4)
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-9)
    with pytest.raises(ValueError, match="level=-9 is not one of the 5 levels of ResNet"):
        image_relevance(model, inputs, 1, level=-9)


def test_hand_computation() -> None:
    model = TinyModel()
    with torch.no_grad():
        model.image_tower.conv.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]).view(2, 3, 1, 1))
        model.image_tower.conv.bias.zero_()
        model.head.weight.copy_(torch.tensor([[0.0, 0, 1], [8, -4, 1]]))
    image = torch.zeros(1, 3, 2, 2)
    image[0, 0] = torch.tensor([[1.0, 2], [0, 0]])
    image[0, 1] = torch.tensor([[0.0, 1], [3, 0]])
    inputs = {"pixel_values": image, "input_ids": torch.tensor([[1, 2]])}
    # d logit / d A_k is W_k / 4 = 2 and -1 at the two places of four where the map is above 0: 1 and -1/2 in the mean
    (found,) = image_relevance(model, inputs, 1, layer=model.image_tower.conv)
    assert found.tolist() == [[1, 1.5], [-1.5, 0]]
    with pytest.raises(ValueError, match="no timm backbone"):
        image_relevance(model, inputs, 1)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_vit", "test_mambaout", "test_convnext", "test_efficientnet"])
def test_every_kind_of_backbone(encoder: str) -> None:
    """Channels first, channels last, and tokens with a class token, compared with autograd."""
    model = shrunk("test_concat", image_encoder=encoder).eval()
    inputs = one(model, 160 if encoder == "test_vit" else 64)
    before = model(**inputs).logits
    (found,) = image_relevance(model, inputs, 0)
    assert found.shape == ((10, 10) if encoder == "test_vit" else (2, 2)) and found.abs().max() > 0
    torch.testing.assert_close(model(**inputs).logits, before, rtol=0, atol=0)

    backbone = model.image_tower.backbone.model
    layer = (
        backbone.blocks[-1].norm1
        if encoder == "test_vit"
        else backbone.get_submodule(backbone.feature_info[-1]["module"])
    )
    kept: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    (gradient,) = torch.autograd.grad(model(**inputs).logits[0, 0], kept)
    handle.remove()
    if encoder == "test_vit":
        gradient, value = (x[0, 1:].reshape(10, 10, -1).permute(2, 0, 1) for x in (gradient, kept[0]))
    elif encoder == "test_mambaout":
        gradient, value = (x[0].permute(2, 0, 1) for x in (gradient, kept[0]))
    else:
        gradient, value = gradient[0], kept[0][0]
    expected = (gradient.mean(dim=(1, 2), keepdim=True) * value).sum(dim=0).detach()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("method", ["grad_cam", "integrated_gradients", "occlusion"])
def test_a_model_that_looks_at_one_corner(method: str) -> None:
    """Only the lower right quarter of the map, and the text, affect the prediction."""

    class Corner(TinyModel):
        def forward(self, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> FusionOutput:
            seen = self.image_tower.conv(pixel_values)
            corner = seen[:, :, 8:, 8:].relu().mean(dim=(1, 2, 3))
            length = (input_ids > 0).sum(dim=1).float()
            return FusionOutput(logits=torch.stack([length, corner + 0.1 * length], dim=1))

    torch.manual_seed(0)
    model = Corner()
    with torch.no_grad():
        model.image_tower.conv.weight.fill_(0.5)
        model.image_tower.conv.bias.zero_()
    image = 0.05 * torch.rand(1, 3, 16, 16)
    image[:, :, 10:14, 10:14] += 1
    inputs = {"pixel_values": image, "input_ids": torch.tensor([[3, 4, 0]])}
    (found,) = image_relevance(model, inputs, 1, method=method, layer=model.image_tower.conv, window=0.2)
    row, column = divmod(int(found.argmax()), found.shape[1])
    assert 10 <= row < 14 and 10 <= column < 14
    if method != "grad_cam":  # whose weights are means over the whole map
        assert found[:6, :6].abs().max() == 0


def test_integrated_gradients_are_complete_and_captums() -> None:
    model = shrunk("test_concat").eval()
    inputs = one(model)
    (found,) = image_relevance(model, inputs, 1, method="integrated_gradients", steps=64)
    blank = inputs | {"pixel_values": torch.zeros_like(inputs["pixel_values"])}
    difference = (model(**inputs).logits - model(**blank).logits)[0, 1]
    torch.testing.assert_close(found.sum(), difference.detach(), rtol=0.05, atol=1e-4)

    image_only = shrunk("test_image").eval()
    pixels = inputs["pixel_values"]
    captum = IntegratedGradients(lambda x: image_only(pixel_values=x).logits).attribute(pixels, target=1, n_steps=8)
    (own,) = image_relevance(image_only, {"pixel_values": pixels}, 1, method="integrated_gradients", steps=8)
    torch.testing.assert_close(own, captum.sum(dim=1)[0].float(), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("tower", ["slices", "views"])
def test_a_map_for_each_picture_that_is_present(tower: str) -> None:
    args = {"dim": 16, "num_heads": 2} if tower == "views" else {}
    model = shrunk("test_concat", image_tower=tower, image_args=args).eval()
    inputs = one(model)
    inputs["pixel_values"] = torch.randn(1, 4, 3, 64, 64)
    inputs["slice_mask" if tower == "slices" else "view_mask"] = torch.tensor([[True, False, True, True]])
    maps = image_relevance(model, inputs, 0)
    assert [tuple(m.shape) for m in maps] == [(2, 2)] * 3
    assert len(image_relevance(model, inputs, 0, method="integrated_gradients", steps=2)) == 3
    if tower == "slices":  # the mean of the slices: each has a third of its relevance alone, whatever its position
        alone = inputs | {"pixel_values": inputs["pixel_values"][:, [0, 2, 3]], "slice_mask": torch.ones(1, 3).bool()}
        torch.testing.assert_close(
            torch.stack(maps), torch.stack(image_relevance(model, alone, 0)), rtol=1e-4, atol=1e-9
        )


@pytest.mark.parametrize("shared", [True, False])
def test_whole_image_and_region(shared: bool) -> None:
    model = shrunk("test_concat", image_tower="global_local", image_args={"shared": shared}).eval()
    inputs = one(model)
    inputs["roi_values"] = torch.randn(1, 3, 32, 32)
    whole, region = image_relevance(model, inputs, 0)
    assert whole.shape == (2, 2) and region.shape == (1, 1)
    swapped = inputs | {"pixel_values": inputs["roi_values"], "roi_values": inputs["pixel_values"]}
    if shared:  # both streams initially have a weight of one half
        again = image_relevance(model, swapped, 0)
        torch.testing.assert_close(again[1], whole, rtol=1e-4, atol=1e-9)


def test_the_model_is_left_as_it_was() -> None:
    model = shrunk("test_concat").train()
    model.head.eval()
    model.text_tower.requires_grad_(False)
    flags = [parameter.requires_grad for parameter in model.parameters()]
    modes = [module.training for module in model.modules()]
    image_relevance(model, one(model), 0)
    assert [parameter.requires_grad for parameter in model.parameters()] == flags
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())


def test_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    model = shrunk("test_concat")
    inputs = one(model)
    with pytest.raises(ValueError, match="did you mean 'grad_cam'"):
        image_relevance(model, inputs, 0, method="gradcam")
    with pytest.raises(ValueError, match="One sample"):
        image_relevance(model, batch(model), 0)
    with pytest.raises(ValueError, match="no image to explain"):
        image_relevance(model, {"input_ids": inputs["input_ids"]}, 0)
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ImportError, match=r'pip install "mmfusion\[explain\]"'):
        image_relevance(model, inputs, 0)
