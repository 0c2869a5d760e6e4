"""Names in, models out; and what is said when a name or a keyword is wrong."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mmfusion
from mmfusion.models import resolve_artifact
from mmfusion.outputs import Fused


def test_list_models_wildcards_and_natural_order():
    names = mmfusion.list_models("image_*")
    assert names.index("image_resnet18") < names.index("image_resnet50")
    assert set(mmfusion.list_models("mibf*")) >= {"mibf_resnet50", "mibf_convnext_base", "mibf_lite0"}
    assert mmfusion.list_models("nothing*") == []


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: mmfusion.create_model("mibf_resnet5"), ValueError, "did you mean 'mibf_resnet50'"),
        (lambda: mmfusion.create_model("test_concat", fusion="gate"), ValueError, "did you mean 'gated'"),
        (lambda: mmfusion.create_model("test_concat", image_encoder="resnet19"), ValueError, "resnet18"),
        (lambda: mmfusion.create_model("test_concat", fushion="gated"), TypeError, "did you mean 'fusion'"),
        (lambda: mmfusion.create_model("test_concat", head_args={"hiden": 3}), TypeError, "head 'mlp'.*'hiden'"),
        (lambda: mmfusion.create_model("test_concat", fusion_args={"num_layers": 3}), TypeError, "fusion 'concat'"),
        (lambda: mmfusion.create_model("runs/exp1"), ValueError, "'local-dir:runs/exp1'.*'hf-hub:runs/exp1'"),
        (lambda: mmfusion.create_model("local-dir:no/such"), FileNotFoundError, "no/such"),
        (
            lambda: mmfusion.create_model("hf-hub:no/such"),
            FileNotFoundError,
            "'hf-hub:no/such': it is not in the cache, and HF_HUB_OFFLINE is set",
        ),
        (lambda: resolve_artifact("runs/exp1"), ValueError, "'local-dir:runs/exp1'"),
        (lambda: mmfusion.create_model("concat_resnet18", pretrained=True), ValueError, "No pretrained weights"),
        (lambda: mmfusion.create_model("test_concat", modality_dropout=1.5), ValueError, "modality_dropout=1.5"),
        (lambda: mmfusion.create_model("test_concat", text_encoder=None, fusion="gated"), ValueError, "both sides"),
        (lambda: mmfusion.create_model("test_image", aux_heads=True), ValueError, "aux_heads"),
        (lambda: mmfusion.create_loss("mp", alhpa=1), TypeError, "loss 'mp'.*alhpa"),
        (lambda: mmfusion.create_fusion("ibfa", image_dim=4), TypeError, "fusion 'ibfa'.*text_dim"),
        (lambda: mmfusion.list_components("fusions"), ValueError, "the kinds are"),
    ],
)
def test_wrong_names_are_told(call, error, words):
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_swapping_a_part_drops_only_its_own_keywords():
    plain = mmfusion.create_model("test_attention")
    swapped = mmfusion.create_model("test_attention", fusion="gated")
    assert swapped.config == {**plain.config, "fusion": "gated"}
    head = mmfusion.create_model("test_attention", head="linear")
    assert head.config == {**plain.config, "head": "linear", "head_args": {}}
    deeper = mmfusion.create_model("test_attention", fusion_args={"num_layers": 2})
    assert len(deeper.fusion.layers) == 2 and deeper.config["dim"] == plain.config["dim"]


def test_removing_a_tower_leaves_the_unimodal_model():
    model = mmfusion.create_model("test_mibf", text_encoder=None)
    assert model.fusion is None and model.text_tower is None and model.aux_heads is None
    assert model(pixel_values=torch.zeros(2, 3, 48, 48)).logits.shape == (2, 7)


@pytest.mark.parametrize("size", ["resnet50", "convnext_base", "lite0"])
def test_mibf_v2_differs_from_the_published_form_in_four_keywords(size):
    with torch.device("meta"):
        published, model = mmfusion.create_model(f"mibf_{size}"), mmfusion.create_model(f"mibf_v2_{size}")
    keywords = {"residual": True, "auxiliary": "own", "max_logit": 4}
    text = {**published.config["text_args"], "pooling": "mean"}
    assert model.config == {**published.config, "fusion_args": keywords, "text_args": text}
    assert published.config["fusion_args"] == {} and published.config["text_args"]["pooling"] == "cls"
    with torch.device("meta"):
        swapped = mmfusion.create_model(f"mibf_v2_{size}", fusion="concat")
        image_only = mmfusion.create_model(f"mibf_v2_{size}", text_encoder=None)
    assert swapped.config["fusion_args"] == {} and swapped.config["text_args"]["pooling"] == "mean"
    assert image_only.config["text_args"] == {} and image_only.fusion is None


def test_a_block_of_ones_own_is_a_name_like_any_other():
    @mmfusion.register("fusion", "mine")
    class Mine(nn.Module):
        def __init__(self, image_dim, text_dim, dim):
            super().__init__()
            self.image, self.text = nn.Linear(image_dim, dim), nn.Linear(text_dim, dim)

        def forward(self, image, text):
            return Fused(pooled=self.image(image.pooled) - self.text(text.pooled))

    try:
        assert "mine" in mmfusion.list_components("fusion")
        model = mmfusion.create_model("test_mibf", fusion="mine").eval()
        out = model(torch.zeros(2, 3, 48, 48), torch.ones(2, 4, dtype=torch.long))
        assert out.logits.shape == (2, 7) and out.features.shape == (2, 32) and out.text_logits.shape == (2, 7)
        with pytest.raises(ValueError, match="taken by"):
            mmfusion.register("fusion", "mine")(nn.Identity)
    finally:
        mmfusion.registry.unregister("fusion", "mine")


@pytest.mark.parametrize(
    "keywords", [{"fusion_args": {"x": 1}}, {"text_args": {"x": 1}}, {"dim": 77}, {"modality_dropout": 0.5}]
)
def test_keywords_of_absent_parts_are_refused(keywords):
    with pytest.raises(TypeError, match="part that this model does not have"):
        mmfusion.create_model("test_image", **keywords)


def test_encoders_stay_frozen_one_after_the_other():
    model = mmfusion.create_model("test_concat")
    model.freeze_encoders(text=False)
    model.freeze_encoders(image=False)
    model.train()
    assert not any(module.training for module in model.image_tower.backbone.modules())
    assert not any(module.training for module in model.text_tower.backbone.modules())
