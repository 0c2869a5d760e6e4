"""Requirements of every registered model; a new model needs no new test code."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch.testing import assert_close
from zoo import batch, shrunk

import mmfusion
from mmfusion.models import save_model


def every_logit(output):
    return [x for x in (output.logits, output.image_logits, output.text_logits) if x is not None]


def test_forward_shapes(model):
    output = model.eval()(**batch(model))
    assert output.logits.shape == (4, 3)
    assert output.features.shape == (4, model.num_features)
    for name, weights in (output.attentions or {}).items():
        assert weights.shape[0] == 4 and weights.ndim == 4, name
        assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))


def test_every_parameter_gets_a_gradient(model):
    inputs = batch(model)
    if model.image_tower is not None:
        inputs["image_present"] = torch.tensor([True, True, False, True])
    if model.text_tower is not None:
        inputs["text_present"] = torch.tensor([True, True, True, False])
    if model.table_tower is not None:
        inputs["table_present"] = torch.tensor([False, True, True, True])
    output = model.train()(**inputs)
    sum(x.square().sum() for x in every_logit(output)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.usefixtures("no_network")
def test_save_and_load_is_bit_equal(model, tmp_path):
    model.eval()
    save_model(model, tmp_path / "m")
    again = mmfusion.create_model(f"local-dir:{tmp_path / 'm'}")
    assert again.config == model.config and again.architecture == model.architecture
    inputs = batch(model)
    for a, b in zip(every_logit(model(**inputs)), every_logit(again(**inputs)), strict=True):
        assert torch.equal(a, b)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == [
        "README.md",
        "config.json",
        "files.json",
        "model.safetensors",
    ]


def test_config_is_plain_json_and_rebuilds(model):
    config = json.loads(json.dumps(model.config))
    again = mmfusion.FusionModel(**config)
    assert {k: v.shape for k, v in again.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_batch_order_changes_nothing(model):
    inputs = batch(model.eval())
    order = torch.tensor([2, 0, 3, 1])
    expected = model(**inputs).logits[order]
    assert_close(model(**{k: v[order] for k, v in inputs.items()}).logits, expected, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_is_the_row_of_a_batch(model):
    inputs = batch(model.eval())
    expected = model(**inputs).logits[2:3]
    assert_close(model(**{k: v[2:3] for k, v in inputs.items()}).logits, expected, rtol=1e-4, atol=1e-5)


def test_padding_changes_nothing(model):
    if model.text_tower is None:
        pytest.skip("no text")
    inputs = batch(model.eval())
    longer = dict(inputs)
    longer["input_ids"] = torch.cat([inputs["input_ids"], torch.full((4, 7), 99)], dim=1)
    longer["attention_mask"] = torch.cat([inputs["attention_mask"], torch.zeros(4, 7, dtype=torch.long)], dim=1)
    assert_close(model(**longer).logits, model(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_absent_slices_and_views_change_nothing(model):
    mask = next((name for name in getattr(model.image_tower, "inputs", ()) if name.endswith("_mask")), None)
    if mask is None:
        pytest.skip("one image per sample")
    inputs = batch(model.eval())
    expected = model(**inputs).logits
    pixels = inputs["pixel_values"]
    absent = ~inputs[mask][..., None, None, None]
    assert_close(model(**{**inputs, "pixel_values": pixels.masked_fill(absent, 7.0)}).logits, expected)
    if mask == "slice_mask":
        longer = {
            "pixel_values": torch.cat([pixels, torch.full_like(pixels[:, :3], 7.0)], dim=1),
            mask: torch.cat([inputs[mask], torch.zeros(4, 3, dtype=torch.bool)], dim=1),
        }
        assert_close(model(**{**inputs, **longer}).logits, expected, rtol=1e-4, atol=1e-5)
    empty = inputs[mask].clone()
    empty[3] = False
    present = torch.tensor([True, True, True, False])
    assert_close(model(**{**inputs, mask: empty}).logits, model(**inputs, image_present=present).logits)


def test_present_flags_change_nothing_when_all_is_present(model):
    inputs = batch(model.eval())
    flags = {f"{side}_present": torch.ones(4, dtype=torch.bool) for side in ("image", "text", "table")}
    assert torch.equal(model(**inputs).logits, model(**inputs, **flags).logits)


@pytest.mark.parametrize("side", ["image", "text", "table"])
def test_a_missing_modality_does_not_depend_on_what_stands_in_its_place(model, side):
    if side not in model.towers:
        pytest.skip(f"no {side}")
    inputs = batch(model.eval())
    present = torch.tensor([True, False, True, False])
    before = model(**inputs, **{f"{side}_present": present})
    other = batch(model, seed=1)
    changed = dict(inputs)
    for key in {"image": ["pixel_values"], "text": ["input_ids"]}.get(side, model.towers[side].inputs):
        changed[key] = torch.where(present.view(-1, *[1] * (inputs[key].ndim - 1)), inputs[key], other[key])
    after = model(**changed, **{f"{side}_present": present})
    assert_close(after.logits, before.logits, rtol=1e-5, atol=1e-6)
    full = model(**inputs)
    assert_close(before.logits[present], full.logits[present], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(before.logits[~present], full.logits[~present])


def test_a_modality_that_no_sample_has_may_be_left_out(model):
    if model.fusion is None:
        pytest.skip("one modality")
    inputs = batch(model.eval())
    none = torch.zeros(4, dtype=torch.bool)
    text = ("input_ids", "attention_mask")
    without_text = {k: v for k, v in inputs.items() if k not in text}
    without_image = {k: v for k, v in inputs.items() if k in text}
    assert_close(model(**without_text).logits, model(**inputs, text_present=none).logits, rtol=1e-4, atol=1e-5)
    assert_close(model(**without_image).logits, model(**inputs, image_present=none).logits, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="pixel_values or input_ids"):
        model()


def test_an_empty_attention_mask_is_a_missing_text(model):
    if model.text_tower is None:
        pytest.skip("no text")
    inputs = batch(model.eval())
    inputs["attention_mask"][1] = 0
    present = torch.tensor([True, False, True, True])
    assert_close(model(**inputs).logits, model(**inputs, text_present=present).logits)


def test_timm_contract(model):
    inputs = batch(model.eval())
    output = model(**inputs)
    fused = model.forward_features(**inputs)
    assert torch.equal(model.forward_head(fused), output.logits)
    assert torch.equal(model.forward_head(fused, pre_logits=True), output.features)
    assert model.get_classifier() is model.head
    assert model.pretrained_cfg["num_classes"] == model.num_classes == 3
    model.reset_classifier(5)
    assert model.eval()(**inputs).logits.shape == (4, 5)
    model.reset_classifier(0)
    assert torch.equal(model(**inputs).logits, output.features)
    assert sum(1 for _ in model.get_classifier().parameters()) == 0


def test_frozen_encoders_stay_frozen(model):
    model.freeze_encoders(**dict.fromkeys(model.modalities, True))
    before = copy.deepcopy({k: v for k, v in model.state_dict().items() if ".backbone." in k or "table_tower." in k})
    model.train()
    optimizer = torch.optim.SGD(model.param_groups(lr=0.1))
    model(**batch(model)).logits.square().sum().backward()
    optimizer.step()
    after = model.state_dict()
    assert before and all(torch.equal(v, after[k]) for k, v in before.items())
    assert all(not g["name"].startswith("encoders") for g in optimizer.param_groups)


def test_param_groups_hold_every_parameter_once(model):
    groups = model.param_groups(lr=1.0, weight_decay=0.1, encoder_lr_scale=0.25)
    ids = [id(p) for g in groups for p in g["params"]]
    assert sorted(ids) == sorted(id(p) for p in model.parameters())
    for group in groups:
        assert group["lr"] == (0.25 if group["name"].startswith("encoders") else 1.0)
        assert group["weight_decay"] == (0.0 if group["name"].endswith("no_decay") else 0.1)
        assert all(p.ndim > 1 for p in group["params"]) or group["weight_decay"] == 0


@pytest.mark.parametrize(
    ("overrides", "undecayed"),
    [
        ({}, set()),
        (
            {"fusion": "ssm"},
            {f"fusion.encoder.blocks.0.ssm.{way}A_log" for way in ("", "reverse.")},
        ),
        (
            {"image_encoder": "test_vit", "image_args": {"img_size": 48}},
            {"image_tower.backbone.model.pos_embed", "image_tower.backbone.model.cls_token"},
        ),
    ],
)
def test_what_a_module_names_is_not_decayed(overrides, undecayed):
    model = shrunk("test_concat", **overrides, text_args={"vocab_size": 64})
    groups = model.param_groups(lr=1.0, weight_decay=0.1)
    kept = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
    found = {name for name, p in model.named_parameters() if id(p) in kept and p.ndim > 1}
    assert found == undecayed
    assert {id(p) for p in model.parameters() if p.ndim <= 1} <= kept


def test_gradient_checkpointing_gives_the_same_gradient(model):
    inputs = batch(model.eval())
    head = next(iter(model.parameters()))
    model(**inputs).logits.sum().backward()
    expected = head.grad.clone()
    model.zero_grad()
    model.set_grad_checkpointing()
    model(**inputs).logits.sum().backward()
    assert_close(head.grad, expected, rtol=1e-4, atol=1e-5)


def test_autocast(model):
    inputs = batch(model.eval())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(**inputs).logits.float()
    expected = model(**inputs).logits
    assert (logits - expected).abs().max() < 0.1 * expected.abs().max() + 0.05


#: models to trace: every image tower, fusion over vectors, tokens and levels, a router, no fusion.
#: (Heads and aggregators are exported in their own tests; test_compiled shows that every model is one graph.)
EXPORTED = (
    "mibf_lite0",
    "cross_attention_resnet18",
    "hier_lite0",
    "bilstm_lite0",
    "multiview_lite0",
    "lesion_context_lite0",
    "text_bert_tiny",
)


@pytest.mark.parametrize("model", EXPORTED, indirect=True)
def test_torch_export(model):
    inputs = batch(model.eval())
    exported = torch.export.export(model, args=(), kwargs=inputs)
    assert_close(exported.module()(**inputs)["logits"], model(**inputs).logits, rtol=1e-4, atol=1e-5)


def test_modality_dropout_hides_one_side_and_only_in_training():
    model = shrunk("test_concat", modality_dropout=0.5, head_args={"dropout": 0.0})
    inputs = batch(model, rows=64)
    inputs["attention_mask"][:] = 1
    model.text_tower.eval()
    seen = {}
    for side in ("image", "text"):
        module = getattr(model, f"{side}_missing")
        module.register_forward_hook(lambda m, args, out, side=side: seen.__setitem__(side, args[1]))
    torch.manual_seed(0)
    model.image_missing.train()
    model.training = True
    model(**inputs)
    image, text = seen["image"], seen["text"]
    assert (image | text).all(), "no sample loses both"
    assert 15 <= int((~image).sum() + (~text).sum()) <= 49
    assert int((~image).sum()) >= 5 and int((~text).sum()) >= 5
    model.eval()
    model(**inputs)
    assert seen["text"].all()


def test_blank_pictures_do_not_enter_batch_norm():
    torch.manual_seed(0)
    model = shrunk("test_concat").train()
    inputs = batch(model)
    present = torch.tensor([True, False, True, True])
    twin = copy.deepcopy(model)
    model(**inputs, image_present=present)
    twin.image_tower(inputs["pixel_values"][present])
    norm = next(name for name, _ in model.named_buffers() if name.endswith("running_mean"))
    assert torch.equal(dict(model.named_buffers())[norm], dict(twin.named_buffers())[norm])


def test_features_computed_before_give_the_same_output(model):
    inputs = batch(model.eval())
    expected = model(**inputs)
    given = {}
    if model.image_tower is not None:
        given["image_features"] = model.image_tower.encode(**model.image_tower.select(inputs))
    if model.text_tower is not None:
        given["text_features"] = model.text_tower.encode(inputs["input_ids"], inputs["attention_mask"])
    if model.table_tower is not None:
        given["table_features"] = model.table_tower.encode(**model.table_tower.select(inputs))
    output = model(**given)
    for a, b in zip(every_logit(output), every_logit(expected), strict=True):
        assert torch.equal(a, b)
    absent = torch.tensor([True, False, True, True])
    side = next(iter(given)).removesuffix("_features")
    output = model(**given, **{f"{side}_present": absent})
    assert_close(output.logits, model(**inputs, **{f"{side}_present": absent}).logits, rtol=1e-4, atol=1e-5)
