"""Image encoders from the Hub, with the real client and a local server."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hub_server import TOKEN, Hub, Repository

sys.path.append(str(Path(__file__).parents[1] / "towers"))
from tiny_encoders import timm_folder, transformers_folder

BUILD = """
    import sys, json, torch, mmfusion
    from mmfusion.models import save_model
    try:
        model = mmfusion.create_model("test_image", image_encoder="{name}", encoder_weights={weights})
    except Exception as error:
        sys.exit(f"{{type(error).__name__}}: {{error}}")
    folder = save_model(model, "{folder}")
    total = float(sum(x.double().abs().sum() for x in model.image_tower.backbone.parameters()))
    print(json.dumps([total, model.origins, model.config["image_args"]["config"]["library"]]))
"""
LOAD = """
    import socket
    def refuse(*args, **kwargs):
        raise AssertionError("a socket was opened")
    socket.socket = refuse
    import json, mmfusion
    model = mmfusion.create_model("local-dir:{folder}")
    total = float(sum(x.double().abs().sum() for x in model.image_tower.backbone.parameters()))
    print(json.dumps([total, model.origins, model.config["image_args"]["config"]["library"]]))
"""


def publish(hub: Hub, name: str, folder: Path, **about: object) -> Repository:
    repository = hub.repositories[name] = Repository(private=False)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    repository.commit("main", files | {"pytorch_model.bin": b"pickle", "code.py": b"raise SystemExit(3)"})
    for key, value in about.items():
        setattr(repository, key, value)
    return repository


def test_encoders_of_both_libraries_are_fetched_once(hub: Hub, client: Callable[..., object], tmp_path: Path) -> None:
    publish(hub, "org/vit", transformers_folder(tmp_path / "vit", "vit"), gated="manual")
    sha = publish(hub, "org/timm", timm_folder(tmp_path / "timm"), card={"license": "mit"}).refs["main"]
    for name, library in (("org/vit", "transformers"), ("org/timm", "timm")):
        folder = tmp_path / library
        done = client(BUILD.format(name=f"hf-hub:{name}", weights="'default'", folder=folder))
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip().endswith(f'"{library}"]')
        assert not any(".bin" in request or ".py" in request for request in hub.requests_seen)
        seen = len(hub.requests_seen)
        loaded = client(LOAD.format(folder=folder))
        assert loaded.stdout == done.stdout, loaded.stderr
        assert len(hub.requests_seen) == seen
    assert f'"source": "hf-hub:org/timm@{sha}", "license": "mit", "gated": false' in loaded.stdout
    card = (tmp_path / "transformers" / "README.md").read_text()
    assert "license cc-by-nc-nd-4.0, gated: accept its terms on its page" in card

    # without weights only the configuration is downloaded, and the weights are random
    hub.requests_seen.clear()
    publish(hub, "org/bare", tmp_path / "vit")
    bare = client(BUILD.format(name="hf-hub:org/bare", weights=None, folder=tmp_path / "bare"))
    assert bare.returncode == 0 and '{}, "transformers"' in bare.stdout
    assert not any("safetensors" in request for request in hub.requests_seen)


@pytest.mark.slow
def test_what_cannot_be_had_is_told_at_once(hub: Hub, client: Callable[..., object], tmp_path: Path) -> None:
    folder = transformers_folder(tmp_path / "vit", "vit")
    repository = publish(hub, "org/vit", folder)
    code = BUILD.format(name="hf-hub:org/vit", weights="'default'", folder=tmp_path / "model")
    away = client(code, cache="empty", HF_ENDPOINT="http://127.0.0.1:9")
    message = away.stderr.strip().splitlines()[-1]
    assert "'hf-hub:org/vit': it is not in the cache, and the Hub is unreachable; connect once" in message
    offline = client(code, cache="empty", HF_HUB_OFFLINE="1")
    assert "it is not in the cache, and HF_HUB_OFFLINE is set" in offline.stderr.splitlines()[-1]
    repository.private = True
    assert "the repository does not exist or is private" in client(code).stderr.splitlines()[-1]
    assert client(code, token=TOKEN).returncode == 0
    repository.commits[repository.refs["main"]].pop("model.safetensors")
    none = client(code, token=TOKEN, cache="other")
    assert "has no model.safetensors; weights in other files" in none.stderr.splitlines()[-1]
    unnamed = client(code.replace("org/vit", "no/such/name"))
    assert "'no/such/name' is not a repository name; write org/name." in unnamed.stderr.splitlines()[-1]
