"""Low-rank adapters: added to attention layers, merged in saved models, kept in the states of a run."""

from __future__ import annotations

import copy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.testing import assert_close

import mmfusion
from mmfusion.training import train
from mmfusion.training.config import LoraConfig, TrainConfig
from mmfusion.training.lora import add_adapters, without_adapters

sys.path.append(str(Path(__file__).parents[1] / "towers"))
from tiny_encoders import transformers_folder

pytest.importorskip("peft")


def build(tmp_path, encoder="vit"):
    torch.manual_seed(0)
    image = "test_vit" if encoder == "timm" else str(transformers_folder(tmp_path / encoder, encoder))
    return mmfusion.create_model("test_concat", num_classes=3, image_encoder=image).eval()


def inputs(size=32):
    return {"pixel_values": torch.randn(2, 3, size, size), "input_ids": torch.randint(5, 60, (2, 7))}


@pytest.mark.parametrize("encoder", ["vit", "dinov2", "clip_vision_model", "swin", "timm"])
def test_merged_equals_unmerged(encoder, tmp_path):
    model = build(tmp_path, encoder)
    batch = inputs(160 if encoder == "timm" else 32)
    plain = copy.deepcopy(model)
    with torch.no_grad():
        before = model(**batch).logits
        add_adapters(model, LoraConfig(rank=4, alpha=8))
        assert torch.equal(model(**batch).logits, before), "a new adapter adds nothing"
    encoders = [tower.backbone for tower in model.towers.values()]
    learning = [n for e in encoders for n, p in e.named_parameters() if p.requires_grad]
    assert learning and all("lora_" in name for name in learning)
    model(**batch).logits.square().sum().backward()
    for tower in model.towers.values():
        gradients = [p.grad for n, p in tower.backbone.named_parameters() if "lora_B" in n]
        assert all(g is not None and g.abs().max() > 0 for g in gradients)
    with torch.no_grad():
        for backbone in encoders:
            for name, parameter in backbone.named_parameters():
                if "lora_B" in name:
                    parameter.normal_(std=0.1)
        unmerged = model(**batch).logits
        assert (unmerged - before).abs().max() > 1e-3
        merged = without_adapters(model)
        assert merged.state_dict().keys() == plain.state_dict().keys()
        assert_close(merged(**batch).logits, unmerged, rtol=0, atol=1e-5)
        assert torch.equal(model(**batch).logits, unmerged), "the model that is trained stays what it is"
    assert without_adapters(plain) is plain


def test_a_run_trains_adapters_saves_an_ordinary_model_and_resumes(make_config, tmp_path):
    folder = transformers_folder(tmp_path / "vit", "vit")
    model = {"name": "test_concat", "image_encoder": str(folder), "encoder_weights": None}
    options = {"encoder_tuning": "lora", "lora": LoraConfig(rank=2), "precision": "fp32", "epochs": 2}
    config = make_config("whole", model, **options)
    result = train(config)
    state = load_file(sorted((result.folder / "checkpoints").glob("*/model.safetensors"))[-1])
    assert any("lora_A" in name for name in state)
    saved = load_file(result.last / "model.safetensors")
    assert not any("lora" in name or "base_layer" in name for name in saved)
    predictor = result.predictor
    assert predictor.network().image_tower.backbone.config["library"] == "transformers"

    resumed = make_config("resumed", model, **{**options, "resume": True})
    shutil.copytree(result.folder, resumed.output)
    last = sorted((Path(resumed.output) / "checkpoints").iterdir(), key=lambda path: int(path.name.split("-")[1]))[-1]
    (last / "optimizer.pt").write_bytes(b"half")
    shutil.rmtree(Path(resumed.output) / "last")
    train(resumed)
    again = load_file(Path(resumed.output) / "last" / "model.safetensors")
    for name, tensor in saved.items():
        assert torch.equal(again[name], tensor), name


def test_mistakes_are_told_in_a_line(tmp_path, monkeypatch):
    convolutional = mmfusion.create_model("test_concat", num_classes=3)
    with pytest.raises(ValueError, match=r"has no layer with a name ending in qkv.*train\.lora\.targets"):
        add_adapters(convolutional, LoraConfig())
    add_adapters(convolutional, LoraConfig(targets=["conv1", "query"]))
    for wrong in ({"encoder_tuning": "some"}, {"encoder_tuning": "lora", "freeze_encoders": True}):
        with pytest.raises(ValueError, match=r"train\.encoder_tuning must be full or lora"):
            TrainConfig(**wrong)
    with pytest.raises(ValueError, match=r"train\.lora\.rank must be at least 1"):
        LoraConfig(rank=0)
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r'needs peft: pip install "mmfusion\[peft\]"'):
        add_adapters(build(tmp_path), LoraConfig())
    assert replace(TrainConfig(), encoder_tuning="lora").lora.alpha == 16
