"""Folders of earlier versions load with the same predictions; `make_golden.py` wrote them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from make_golden import rows
from safetensors.torch import load_file, save_file

import mmfusion
from mmfusion.artifacts import versions as _format
from mmfusion.artifacts.versions import FORMAT_VERSION, Renamed, renamed_model
from mmfusion.models import load_model, read_config

GOLDEN = sorted(Path(__file__).with_name("golden").glob("format-*/*"))
NAMES = [f"{folder.parent.name}/{folder.name}" for folder in GOLDEN]


def probabilities(folder: Path) -> list[dict[str, float]]:
    several = read_config(folder)["model"]["image_tower"] == "slices"
    predictor = mmfusion.Predictor.from_pretrained(f"local-dir:{folder}")
    return [answer["probabilities"] for answer in predictor.predict(rows(several))]


def assert_as_then(folder: Path, golden: Path) -> None:
    expected = json.loads((golden / "expected.json").read_text())
    for found, then in zip(probabilities(folder), expected, strict=True):
        assert list(found) == list(then)
        np.testing.assert_allclose(list(found.values()), list(then.values()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("folder", GOLDEN, ids=NAMES)
def test_predicts_what_it_predicted_when_it_was_written(folder: Path) -> None:
    assert_as_then(folder, folder)


def test_every_format_version_has_golden_folders() -> None:
    found = {int(folder.parent.name.removeprefix("format-")) for folder in GOLDEN}
    assert found == set(range(1, FORMAT_VERSION + 1))


def test_old_names_load_under_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Renaming `fuse` to `fusion`, the block `joint` to `ibfa`, and its layer `proj_image` to `image_proj`."""
    golden = GOLDEN[NAMES.index("format-1/mibf")]
    old = tmp_path / "old"
    shutil.copytree(golden, old)
    config = json.loads((old / "config.json").read_text())
    config["model"]["fuse"] = {"ibfa": "joint"}[config["model"].pop("fusion")]
    del config["weights_sha256"]
    (old / "config.json").write_text(json.dumps(config))
    state = load_file(old / "model.safetensors")
    renamed = {name.replace("fusion.image_proj.", "fusion.proj_image."): x for name, x in state.items()}
    assert renamed.keys() != state.keys()
    save_file(renamed, old / "model.safetensors")
    with pytest.raises(ValueError, match=r"config\.json: .*'fuse'"):
        load_model(old)

    table = {
        2: Renamed(keywords={"fuse": "fusion"}, tensors={"fusion.proj_image.": "fusion.image_projection."}),
        3: Renamed(parts={"fusion": {"joint": "ibfa"}}, tensors={"fusion.image_projection.": "fusion.image_proj."}),
    }
    monkeypatch.setattr(_format, "RENAMED", table)
    assert_as_then(old, golden)
    assert_as_then(golden, golden)


def test_names_of_the_present_version_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_format, "RENAMED", {2: Renamed(keywords={"a": "b"}, parts={"b": {"x": "y"}})})
    model: dict[str, Any] = {"a": "x"}
    assert renamed_model(model, 1) == {"b": "y"} and model == {"a": "x"}
    assert renamed_model(model, 2) == model
