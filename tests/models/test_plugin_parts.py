"""Saved models with parts from a plugin: recorded, named in errors, never imported unasked."""

from __future__ import annotations

import json
import sys

import pytest
import torch

import mmfusion
from mmfusion import registry
from mmfusion.models import save_model

PLUGIN = """
from pathlib import Path
import torch
from mmfusion.fusion.pooled import PooledFusion
from mmfusion import register

Path(__file__).with_name("imported").touch()

@register("fusion", "maximum")
class Maximum(PooledFusion):
    def combine(self, image, text):
        return torch.maximum(image, text), None
"""


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A saved model with a fusion block of the module ``brings_maximum``, which is unloaded afterwards."""
    (tmp_path / "brings_maximum.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    with registry.temporarily():
        registry.load_plugins(["brings_maximum"])
        model = mmfusion.create_model("test_concat", num_classes=3, fusion="maximum").eval()
        save_model(model, tmp_path / "model")
    del sys.modules["brings_maximum"]
    (tmp_path / "imported").unlink()
    yield tmp_path / "model", model
    sys.modules.pop("brings_maximum", None)


def test_the_folder_names_the_module(saved, tmp_path):
    folder, _ = saved
    assert json.loads((folder / "config.json").read_text())["plugins"] == {"fusion": "brings_maximum"}
    save_model(mmfusion.create_model("test_concat"), tmp_path / "plain")
    assert "plugins" not in json.loads((tmp_path / "plain" / "config.json").read_text())
    save_model(mmfusion.create_model("test_concat"), folder)
    assert "plugins" not in json.loads((folder / "config.json").read_text())


def test_loading_says_which_plugin_and_does_not_import_it(saved, tmp_path):
    folder, _ = saved
    message = r"config\.json: its fusion 'maximum' is in the plugin 'brings_maximum'; add --plugins brings_maximum"
    with pytest.raises(ValueError, match=message) as caught:
        mmfusion.create_model(f"local-dir:{folder}")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "imported").exists()
    with registry.temporarily():  # a part that was replaced by a built-in one is no longer needed
        other = mmfusion.models.load_model(folder, fusion="add")
    assert type(other.fusion).__name__ == "Add"


def test_with_the_plugin_the_model_is_the_same(saved):
    folder, model = saved
    with registry.temporarily():
        registry.load_plugins(["brings_maximum"])
        again = mmfusion.create_model(f"local-dir:{folder}")
    batch = torch.randn(2, 3, 48, 48), torch.ones(2, 4, dtype=torch.long)
    assert torch.equal(again(*batch).logits, model(*batch).logits)


def test_a_part_registered_in_a_script_is_asked_for_in_other_words(saved):
    folder, _ = saved
    path = folder / "config.json"
    path.write_text(path.read_text().replace("brings_maximum", "__main__"))
    (folder / "files.json").unlink()
    with pytest.raises(ValueError, match="was registered in a script; register it in a module"):
        mmfusion.create_model(f"local-dir:{folder}")
