"""Image encoders from folders, compared with transformers and timm."""

from __future__ import annotations

import json
import socket
import warnings

import pytest
import timm
import torch
from tiny_encoders import SETTINGS, timm_folder, transformers_folder
from torch.testing import assert_close
from transformers import AutoModel

import mmfusion
from mmfusion.models import save_model
from mmfusion.towers import Backbone, ImageTower
from mmfusion.towers.vision import FAMILIES, VisionEncoder, preprocessing


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")

    return lambda: monkeypatch.setattr(socket, "socket", refuse)


def test_every_family_is_tried():
    assert SETTINGS.keys() == FAMILIES.keys()


@pytest.mark.parametrize("kind", FAMILIES)
def test_vectors_are_those_of_transformers(kind, tmp_path):
    folder = transformers_folder(tmp_path / "encoder", kind)
    backbone = Backbone(str(folder), "default", num_levels=2).eval()
    reference = AutoModel.from_pretrained(folder).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        features = backbone(x)
        out = reference(x, output_hidden_states=True)
    if kind in ("vit", "deit"):  # their pooler is a layer for a pretraining task, which many checkpoints lack
        expected = out.last_hidden_state[:, 0]
    elif kind == "ijepa":
        expected = out.last_hidden_state.mean(1)
    else:
        expected = out.pooler_output.flatten(1)
    assert_close(features.pooled, expected)
    assert features.pooled.shape == (2, backbone.num_features)
    assert features.tokens.shape[-1] == backbone.num_features
    prefix = {"deit": 2, "dinov2_with_registers": 5, "ijepa": 0, "siglip_vision_model": 0}.get(kind, 1)
    if FAMILIES[kind].prefix is not None and not kind.startswith("swin"):
        assert features.tokens.shape[1] == 16
        patches = out.hidden_states[1 if backbone.level_indices[0] == 0 else 2][:, prefix:]
        assert_close(features.levels[0], patches.mean(1))
    assert [level.shape[1] for level in features.levels] == list(backbone.level_dims)
    assert features.levels[-1] is features.pooled


@pytest.mark.parametrize("kind", FAMILIES)
def test_every_parameter_learns_and_other_sizes_run(kind, tmp_path):
    folder = transformers_folder(tmp_path / "encoder", kind)
    tower = ImageTower(str(folder))
    size = 64 if kind != "dinov2" else 40
    features = tower(torch.randn(2, 3, size, size))
    (features.pooled.sum() + (features.tokens**2).sum()).backward()
    learning = {name: p for name, p in tower.named_parameters() if p.requires_grad}
    assert [name for name, p in learning.items() if p.grad is None] == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some have none
        tower.set_grad_checkpointing()
    tower.set_grad_checkpointing(False)


def test_images_are_shown_as_the_preprocessor_says(tmp_path):
    tower = ImageTower(str(transformers_folder(tmp_path / "encoder", "vit")))
    cfg = tower.pretrained_cfg
    assert cfg["input_size"] == [3, 32, 32] and cfg["crop_pct"] == 32 / 40 and cfg["interpolation"] == "bilinear"
    assert cfg["mean"] == [0.5, 0.4, 0.3] and cfg["std"] == [0.2, 0.3, 0.4]
    plain = preprocessing({"size": {"height": 48, "width": 48}, "do_normalize": False}, {"image_size": 32})
    assert plain["input_size"] == [3, 48, 48] and plain["mean"] == [0, 0, 0] and plain["crop_pct"] == 1


def test_timm_folder_is_what_timm_loads(tmp_path):
    folder = timm_folder(tmp_path / "encoder")
    tower = ImageTower(str(folder), "default").eval()
    reference = timm.create_model(f"local-dir:{folder}", pretrained=True, num_classes=0).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(tower(x).pooled, reference(x))
    assert tower.pretrained_cfg["mean"] == [0.1, 0.2, 0.3] and tower.pretrained_cfg["input_size"] == [3, 64, 64]
    assert tower.origin == {"source": "local-dir:encoder", "license": None, "gated": None}


@pytest.mark.parametrize("make", [timm_folder, lambda f: transformers_folder(f, "vit")])
@pytest.mark.parametrize("image_tower", ["single", "slices", "views", "global_local"])
def test_saved_models_need_neither_folder_nor_network(make, image_tower, tmp_path, no_network):
    folder = make(tmp_path / "encoder")
    model = mmfusion.create_model(
        "test_concat", num_classes=3, image_encoder=str(folder), image_tower=image_tower, encoder_weights="default",
        text_args={"vocab_size": None},
    ).eval()  # fmt: skip
    saved = save_model(model, tmp_path / "model")
    folder.rename(tmp_path / "gone")
    config = json.loads((saved / "config.json").read_text())
    assert (
        config["model"]["image_encoder"] == "encoder" and config["encoders"]["image"]["source"] == "local-dir:encoder"
    )
    no_network()
    loaded = mmfusion.create_model(f"local-dir:{saved}")
    size = 64 if make is timm_folder else 32
    inputs = {"pixel_values": torch.randn(2, 3, size, size), "input_ids": torch.randint(5, 60, (2, 7))}
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, loaded(**inputs).logits)
    assert loaded.origins == model.origins
    again = save_model(loaded, tmp_path / "again")
    assert json.loads((again / "config.json").read_text()) == config
    if make is not timm_folder:
        card = (saved / "README.md").read_text()
        assert "started from `local-dir:encoder`, license cc-by-nc-nd-4.0, gated" in card


def test_without_weights_the_architecture_alone_is_built(tmp_path):
    folder = transformers_folder(tmp_path / "encoder", "dinov2")
    (folder / "model.safetensors").unlink()
    model = mmfusion.create_model("test_image", image_encoder=str(folder), image_args={"num_hidden_layers": 2})
    assert len(model.image_tower.backbone.model.net.encoder.layer) == 2
    assert model.origins == {} and model.no_weight_decay() >= {
        "image_tower.backbone.model.net.embeddings.cls_token",
        "image_tower.backbone.model.net.embeddings.position_embeddings",
    }
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(FileNotFoundError, match=r"has no model.safetensors; weights in other files .* are pickle"):
        mmfusion.create_model("test_image", image_encoder=str(folder), encoder_weights="default")


def test_what_is_not_taken_is_told_in_a_line(tmp_path):
    folder = transformers_folder(tmp_path / "encoder", "vit")
    path = folder / "config.json"
    whole = json.loads(path.read_text())
    for changed, message in (
        ({"model_type": "bert"}, "has the unsupported transformers type 'bert'; supported are vit, deit"),
        ({"model_type": "vit", "num_channels": 1}, "has 1 channels, but images have three"),
        ({"model": {}}, "is a saved model of mmfusion, not an encoder"),
        ({"architecture": "no_such"}, "its architecture 'no_such' of 'timm' is not known here"),
    ):
        path.write_text(json.dumps(changed))
        with pytest.raises(ValueError, match=message):
            ImageTower(str(folder))
    path.write_text(json.dumps({"architecture": "test_vit", "model_args": {"checkpoint_path": "x.pth"}}))
    with pytest.raises(TypeError, match="takes no checkpoint_path"):
        ImageTower(str(folder))
    path.write_text(json.dumps(whole | {"auto_map": {"AutoModel": "code.Mine"}, "quantization_config": {"a": 1}}))
    tower = ImageTower(str(folder))
    assert "auto_map" not in json.dumps(tower.resolve({})) and "quantization" not in json.dumps(tower.resolve({}))
    with pytest.raises(TypeError, match="no setting 'colour'"):
        ImageTower(str(folder), colour=1)
    with pytest.raises(ValueError, match="does not exist"):
        ImageTower("local-dir:nowhere")
    with pytest.raises(ValueError, match="For a repository of the Hub write 'hf-hub:org/name'"):
        ImageTower("org/name")


def test_weights_have_to_be_whole(tmp_path):
    from safetensors.torch import load_file, save_file

    for make in (timm_folder, lambda f: transformers_folder(f, "vit")):
        folder = make(tmp_path / make.__name__)
        path = folder / "model.safetensors"
        state = load_file(path)
        lost = next(name for name in state if "bias" in name and "head" not in name and "pool" not in name)
        save_file({k: v for k, v in state.items() if k != lost}, path, metadata={"format": "pt"})
        with pytest.raises(ValueError, match=f"has no weights for {lost}"):
            ImageTower(str(folder), "default")


def test_saved_config_without_its_encoder_is_refused(tmp_path):
    folder = transformers_folder(tmp_path / "encoder", "vit")
    saved = save_model(mmfusion.create_model("test_image", image_encoder=str(folder)), tmp_path / "model")
    path = saved / "config.json"
    config = json.loads(path.read_text())
    config["model"] |= {"image_encoder": "hf-hub:org/name", "image_args": {}}
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="lacks the configuration of its image encoder"):
        mmfusion.create_model(f"local-dir:{saved}")


def test_single_precision_whatever_the_file_holds(tmp_path):
    folder = transformers_folder(tmp_path / "encoder", "vit")
    AutoModel.from_pretrained(folder).half().save_pretrained(folder)
    tower = ImageTower(str(folder), "default")
    assert {p.dtype for p in tower.parameters()} == {torch.float32}
    assert isinstance(tower.backbone.model, VisionEncoder)


@pytest.mark.parametrize("kind", ["vit", "dinov2", "clip_vision_model", "convnext", "swin"])
def test_early_stages_freeze_and_layers_have_their_rates(kind, tmp_path):
    """The embedding is the stem, each block or stage a group, and the rest belongs to the last."""
    folder = transformers_folder(tmp_path / "encoder", kind)
    model = mmfusion.create_model("test_image", image_encoder=str(folder), num_classes=2)
    model.freeze_stages(0)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad and not name.endswith("mask_token")}
    assert frozen and all("embed" in name or "pre_layrnorm" in name for name in frozen)
    model.unfreeze_encoders()
    rates = {g["lr"] for g in model.param_groups(lr=1.0, encoder_lr_scale=1.0, layer_decay=0.5)}
    assert {1.0, 0.5} < rates and min(rates) <= 0.25
