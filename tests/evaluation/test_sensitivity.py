"""Change of the probabilities when a modality is exchanged, compared with exchanging the inputs."""

from __future__ import annotations

import copy

import pytest
import torch
from zoo import batch, shrunk

from mmfusion.evaluation import modality_sensitivity

INPUTS = {"image": ("pixel_values",), "text": ("input_ids", "attention_mask")}


def by_hand(model, batches, modality):
    """The same with full forward passes on inputs with a modality from another row."""
    changes = []
    for inputs in batches:
        rows = len(inputs["pixel_values"])
        other = [(i - rows // 2) % rows for i in range(rows)]
        exchanged = {name: x[other] if name in INPUTS[modality] else x for name, x in inputs.items()}
        p, q = (model(**x).logits.double().softmax(-1) for x in (inputs, exchanged))
        changes += ((p - q).abs().sum(-1) / 2).tolist()
    return sum(changes) / len(changes)


@pytest.mark.parametrize("name", ["test_concat", "test_mibf", "test_attention", "hier_lite0"])
def test_it_is_what_exchanging_the_inputs_gives(name):
    model = shrunk(name).eval()
    batches = [batch(model, rows=5), batch(model, rows=4, seed=1)]
    found = modality_sensitivity(model, batches)
    assert list(found) == ["image", "text"]
    for modality, value in found.items():
        assert value == pytest.approx(by_hand(model, batches, modality), abs=1e-6) and value > 1e-5


def test_features_computed_before_give_the_same():
    model = shrunk("test_mibf").eval()
    inputs = batch(model)
    features = {
        "image_features": model.image_tower.encode(inputs["pixel_values"]),
        "text_features": model.text_tower.encode(inputs["input_ids"], inputs["attention_mask"]),
    }
    assert modality_sensitivity(model, [features]) == modality_sensitivity(model, [inputs])


def test_a_modality_that_the_head_does_not_see_moves_nothing():
    model = shrunk("test_concat", fusion="add")
    torch.nn.init.zeros_(model.fusion.text_proj.weight)
    found = modality_sensitivity(model, [batch(model)])
    assert found["text"] == 0 and found["image"] > 1e-5


def test_a_total_exchange_is_one():
    """Two rows with certain, different classes that depend only on the image."""
    model = shrunk("test_concat", fusion="add", head="linear")
    for layer in (model.fusion.text_proj, model.head):
        torch.nn.init.zeros_(next(iter(layer.parameters())))
    inputs = batch(model.eval(), rows=2)
    v = model.fusion(*model.sides(model.tower_features(**inputs))).pooled
    linear = next(layer for layer in model.head.modules() if isinstance(layer, torch.nn.Linear))
    direction = (v[0] - v[1]).detach() / (v[0] - v[1]).square().sum().item()
    middle = (v[0] + v[1]).detach() @ direction / 2
    linear.weight.data = torch.stack([direction, -direction, torch.zeros_like(direction)]) * 200
    linear.bias.data = torch.tensor([-middle, middle, -1e3 / 200]) * 200
    assert modality_sensitivity(model, [inputs])["image"] == pytest.approx(1, abs=1e-6)


def test_rows_with_the_same_text_count_for_nothing():
    model = shrunk("test_concat").eval()
    inputs = batch(model)
    inputs["input_ids"][:], inputs["attention_mask"][:] = inputs["input_ids"][0], 1
    assert list(modality_sensitivity(model, [inputs])) == ["image"]
    mixed = {name: x.clone() for name, x in inputs.items()}
    mixed["input_ids"][1] = mixed["input_ids"][1].flip(0)
    assert modality_sensitivity(model, [mixed])["text"] == pytest.approx(2 * by_hand(model, [mixed], "text"), abs=1e-6)


def test_nothing_to_exchange():
    model = shrunk("test_concat")
    assert modality_sensitivity(model, [batch(model, rows=1)]) == {} == modality_sensitivity(model, [])
    image = shrunk("test_image")
    assert modality_sensitivity(image, [batch(image)]) == {}


def test_the_model_and_the_random_numbers_are_left_as_they_were():
    model = shrunk("test_concat", modality_dropout=0.5).train()
    model.freeze_encoders(image=False)
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = modality_sensitivity(model, [batch(model)])
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert [module.training for module in model.modules()] == modes and True in modes and False in modes
    assert first == modality_sensitivity(model.eval(), [batch(model)])
    assert all(p.grad is None for p in model.parameters())


def test_columns_are_exchanged_too():
    table = {"table_encoder": "table_mlp", "table_args": {"numeric": 2, "categories": [3]}}
    model = shrunk("mibf_v2_lite0", **table, text_args={"vocab_size": 128})
    found = modality_sensitivity(model, [batch(model)])
    assert list(found) == ["image", "text", "table"] and all(value > 0 for value in found.values())
