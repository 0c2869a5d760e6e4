"""Models by name, and errors for wrong names and keywords."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from torch import nn

import mmfusion
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.data.table_columns import TableColumns
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
        (lambda: mmfusion.create_model("test_image", in_chans=1), TypeError, "in_chans'; all images are read as RGB"),
        (lambda: mmfusion.create_model("test_image", num_classes=1), ValueError, "use num_classes=2 for yes and no"),
        (lambda: mmfusion.create_model("test_concat", head_args={"hiden": 3}), TypeError, "head 'mlp'.*'hiden'"),
        (lambda: mmfusion.create_model("test_concat", fusion_args={"num_layers": 3}), TypeError, "fusion 'concat'"),
        (lambda: mmfusion.create_model("runs/exp1"), ValueError, "'local-dir:runs/exp1'.*'hf-hub:runs/exp1'"),
        (lambda: mmfusion.create_model("local-dir:no/such"), FileNotFoundError, "no/such"),
        (
            lambda: mmfusion.create_model("hf-hub:no/such"),
            FileNotFoundError,
            "'hf-hub:no/such': it is not in the cache, and HF_HUB_OFFLINE is set",
        ),
        (
            lambda: resolve_artifact("runs/exp1"),
            FileNotFoundError,
            "no such folder; a model on the Hub is 'hf-hub:runs/",
        ),
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
        table = {"table_encoder": "table_mlp", "table_args": {"numeric": 2, "categories": [3]}}
        columns = mmfusion.create_model(f"mibf_v2_{size}", text_encoder=None, **table)
    assert swapped.config["fusion_args"] == {} and swapped.config["text_args"]["pooling"] == "mean"
    assert image_only.config["text_args"] == {} and image_only.fusion is None
    assert columns.config["text_args"] == {} and columns.config["fusion_args"] == keywords
    assert columns.modalities == ["image", "table"] and columns.aux_heads is not None


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


def test_unfreezing_undoes_freezing():
    model = mmfusion.create_model("test_concat").train()
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    model.freeze_encoders()
    model.freeze_encoders()
    assert len(model.frozen) == 2
    model.unfreeze_encoders(text=False)
    assert all(module.training for module in model.image_tower.backbone.modules())
    assert not any(p.requires_grad for p in model.text_tower.backbone.parameters())
    model.unfreeze_encoders()
    assert {name for name, p in model.named_parameters() if p.requires_grad} == trainable and model.frozen == []
    assert all(module.training for module in model.eval().train().modules())
    with pytest.raises(TypeError, match="no modality 'imge'; did you mean 'image'"):
        model.unfreeze_encoders(imge=True)


def test_labels_fill_the_loss_that_the_plain_objective_has():
    model = mmfusion.create_model("test_concat", num_classes=3, head="moe").eval()
    labels = torch.tensor([0, 2])
    inputs = {"pixel_values": torch.randn(2, 3, 48, 48), "input_ids": torch.randint(5, 100, (2, 6))}
    output = model(**inputs, labels=labels)
    assert output.aux_loss > 0
    expected = -output.logits.log_softmax(dim=-1)[[0, 1], labels].mean() + output.aux_loss
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.loss, mmfusion.create_loss("ce")(output, labels)["loss"])
    plain = model(**inputs)
    assert plain.loss is None and plain.to_tuple()[0] is plain.logits
    assert all(torch.equal(output[name], plain[name]) for name in ("logits", "features", "router_probs", "aux_loss"))
    with pytest.raises(TypeError, match="No tower of the model reads the input 'label'"):
        model(**inputs, label=labels)


def test_a_processor_gives_vocabulary_and_classes():
    tokenizer = fit_wordpiece(["a red spot", "a blue spot"])
    processor = Processor(["x", "y"], image_size=32, tokenizer=tokenizer)
    model = mmfusion.create_model("test_mibf", processor=processor)
    assert (model.text_tower.vocab_size, model.num_classes) == (len(tokenizer), 2)
    same = mmfusion.create_model("test_mibf", num_classes=2, text_args={"vocab_size": len(tokenizer)})
    assert model.config == same.config
    roomy = mmfusion.create_model("test_mibf", processor=processor, text_args={"vocab_size": 300})
    assert roomy.text_tower.vocab_size == 300
    with pytest.raises(ValueError, match="The model has 4 classes, but the processor 2: x, y"):
        mmfusion.create_model("test_mibf", processor=processor, num_classes=4)


def test_a_processor_gives_columns_and_their_statistics():
    frame = pd.DataFrame({"age": [20.0, 40.0, 60.0, 80.0] * 10, "site": ["back", "face"] * 20})
    table = TableColumns.fit(frame, numeric=["age"], categorical=["site"])
    processor = Processor(["x", "y"], image_size=32, table=table)
    model = mmfusion.create_model("test_image", fusion="concat", table_encoder="table_mlp", processor=processor)
    assert model.config["table_args"]["numeric"] == 1 and len(model.config["table_args"]["categories"]) == 1
    told = mmfusion.create_model(
        "test_image", fusion="concat", table_encoder="table_mlp", table_args=table.table_args()
    )
    told.towers["table"].set_statistics(*table.statistics())
    buffers = dict(told.towers["table"].named_buffers())
    assert buffers and all(torch.equal(buffers[n], b) for n, b in model.towers["table"].named_buffers())
    batch = processor(images=[None], table=[{"age": 50, "site": "back"}], labels=["y"])
    assert torch.isfinite(model(**batch).loss)
    with pytest.raises(ValueError, match="reads 2 numeric and 0 categorical columns, but the processor has 1 and 1"):
        mmfusion.models.save_pretrained(
            mmfusion.create_model(
                "test_image", num_classes=2, fusion="concat", table_encoder="table_mlp", table_args={"numeric": 2}
            ),
            "never",
            processor,
        )


def test_encoder_weights_name_modalities_of_the_model() -> None:
    with pytest.raises(ValueError, match="encoder_weights has the unknown modality 'imgae'; did you mean 'image'"):
        mmfusion.create_model("test_mibf", encoder_weights={"imgae": "default"})


def test_biases_of_columns_and_vectors_of_missing_cells_are_not_decayed() -> None:
    model = mmfusion.create_model("table_mlp", num_classes=2, table_args={"numeric": 2, "categories": [3]})
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for group in model.param_groups(lr=1.0) if group["weight_decay"] for p in group["params"]}
    assert "table_tower.numeric.embed.weight" in decayed and "table_tower.categories.embed.weight" in decayed
    kept = {"table_tower.numeric.missing", "table_tower.numeric.embed.bias", "table_tower.categories.bias"}
    assert not kept & decayed
