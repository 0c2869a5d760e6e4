"""Folders of tiny encoders in the Hub's formats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModel

_SEQUENCE: dict[str, Any] = {
    **{"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64},
    **{"image_size": 32, "patch_size": 8},
}
_SWIN = {
    **{"image_size": 32, "patch_size": 2, "embed_dim": 8, "depths": [1, 1, 1], "num_heads": [1, 2, 2]},
    "window_size": 4,
}
_CONV = {"hidden_sizes": [8, 16, 32], "depths": [1, 1, 1]}

#: model type -> settings of a tiny one.
SETTINGS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("vit", "deit", "beit", "ijepa", "dinov2", "dinov2_with_registers", "dinov3_vit"), _SEQUENCE),
    **dict.fromkeys(("clip_vision_model", "siglip_vision_model"), _SEQUENCE),
    **dict.fromkeys(("swin", "swinv2"), _SWIN),
    **{"convnext": {**_CONV, "num_stages": 3}, "convnextv2": {**_CONV, "num_stages": 3}},
    "resnet": {**_CONV, "embedding_size": 8, "layer_type": "basic"},
    "regnet": {**_CONV, "embedding_size": 8, "groups_width": 8},
}

PREPROCESSOR = {
    **{"do_resize": True, "size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32, "resample": 2},
    **{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.3, 0.4]},
}


def transformers_folder(folder: Path, kind: str) -> Path:
    """A tiny encoder of a type, with random weights."""
    torch.manual_seed(1)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **SETTINGS[kind]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-nd-4.0\nextra_gated_prompt: Sign.\n---\nA model.\n")
    return folder


def timm_folder(folder: Path) -> Path:
    """A tiny timm model in the Hub's format with its own image size."""
    torch.manual_seed(2)
    model = timm.create_model("test_vit", num_classes=5, img_size=64, class_token=False, global_pool="avg")
    folder.mkdir(parents=True, exist_ok=True)
    save_file(model.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    cfg = {
        **{"input_size": [3, 64, 64], "mean": [0.1, 0.2, 0.3], "std": [0.9, 0.8, 0.7], "interpolation": "bilinear"},
        **{"crop_pct": 0.9, "classifier": "head", "first_conv": "patch_embed.proj", "license": "mit"},
    }
    config = {"architecture": "test_vit", "num_classes": 5, "num_features": model.num_features, "pretrained_cfg": cfg}
    config["model_args"] = {"img_size": 64, "class_token": False, "global_pool": "avg"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder
