"""Models in double precision compute in double precision throughout."""

from __future__ import annotations

import pytest
import torch
from zoo import batch, labels_for

import mmfusion
from mmfusion.layers import GroupKANLinear
from mmfusion.outputs import FusionOutput


@pytest.mark.parametrize(
    ("fusion", "head", "loss"),
    [
        ("concat", "kan", "focal"),
        ("ibfa", "moe", "mp"),
        ("hier_interact", "dual_expert", "ce"),
        ("ssm", "attention_pool", "logit_adjusted"),
    ],
)
def test_a_whole_model_passes_gradcheck(fusion, head, loss):
    torch.manual_seed(0)
    model = mmfusion.create_model(
        "test_concat", num_classes=3, fusion=fusion, head=head, aux_heads=True, aux_hidden=4, dim=16
    )
    model = model.double().eval()
    counts = {"class_counts": [5, 3, 1]} if loss == "logit_adjusted" else {}
    criterion = mmfusion.create_loss(loss, **counts)
    inputs = batch(model, rows=2, length=4, size=32)
    pixels = inputs.pop("pixel_values").double().requires_grad_()
    labels = torch.tensor([0, 2])
    parameters = {name: p for name, p in model.named_parameters() if name.startswith(("fusion", "head"))}

    def objective(pixel_values, *values):
        changed = dict(zip(parameters, values, strict=True))
        return criterion(torch.func.functional_call(model, changed, (pixel_values,), inputs), labels)["loss"]

    value = objective(pixels, *parameters.values())
    assert value.dtype == torch.float64
    assert torch.autograd.gradcheck(objective, (pixels, *parameters.values()), fast_mode=True)


@pytest.mark.parametrize("head", mmfusion.list_components("head"))
def test_what_a_head_says_is_double(head):
    output = mmfusion.create_head(head, in_features=8, num_classes=3).double()(torch.randn(4, 8).double())
    for tensor in (output.logits, output.router_probs, output.aux_loss, *(output.gates or {}).values()):
        assert tensor is None or tensor.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("loss", mmfusion.list_components("loss"))
def test_a_loss_is_in_double_for_double_and_in_single_for_less(loss, dtype):
    torch.manual_seed(0)
    more = {"focal": {"alpha": [0.1, 0.3, 0.6]}, "logit_adjusted": {"class_counts": [5, 3, 1]}}
    criterion = mmfusion.create_loss(loss, **more.get(loss, {}))
    logits = [torch.randn(4, 3).to(dtype) for _ in range(4)]
    labels = labels_for(criterion, 4, 3)

    def value(of):
        names = ("logits", "image_logits", "text_logits", "log_scales")
        return criterion(FusionOutput(**{name: x.to(of) for name, x in zip(names, logits, strict=True)}), labels)

    found, exact = value(dtype), value(torch.float64)["loss"]
    assert all(term.dtype == torch.promote_types(dtype, torch.float32) for term in found.values())
    tolerance = 0 if dtype == torch.float64 else 1e-6
    assert found["loss"].item() == pytest.approx(exact.item(), rel=tolerance, abs=0)


def test_positions_of_slices_are_double():
    aggregator = mmfusion.create_aggregator("transformer", in_features=4, hidden_size=8).double().eval()
    for parameter in aggregator.proj.parameters():
        torch.nn.init.zeros_(parameter)
    seen = []
    aggregator.layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    aggregator(torch.randn(1, 300, 4).double())
    rate = 10000.0 ** -(torch.arange(0, 8, 2).double() / 8)
    angle = torch.arange(300).double()[:, None] * rate
    expected = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
    torch.testing.assert_close(seen[0][0], expected, rtol=0, atol=1e-11)


def test_the_spline_basis_is_exact_after_any_change_of_type():
    layer = GroupKANLinear(8, 2)
    before = layer.phi.pieces.clone()
    exact = layer.double().phi.pieces.clone()
    assert exact.dtype == torch.float64 and not torch.equal(exact, before.double())
    assert torch.equal(layer.half().float().phi.pieces, before)
    assert torch.equal(layer.bfloat16().double().phi.pieces, exact)
