"""Push and load with the real Hub client and a local HTTP server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, Hub, Repository

import mmfusion
from mmfusion.artifacts.hub import HUB_FILES
from mmfusion.models import save_model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A saved model with other files in its folder that must not be uploaded."""
    torch.manual_seed(0)
    folder = save_model(
        mmfusion.create_model("test_concat", num_classes=3), tmp_path / "model", metrics={"accuracy": 0.5}
    )
    (folder / "secret.pkl").write_bytes(b"pickle")
    for name in ("response.json", "patients.txt", "notes.md", ".credentials.json"):
        (folder / name).write_text("{}")
    (folder / "patients.csv").write_text("name\n")
    return folder


LOAD = """
    import sys, torch, mmfusion
    try:
        model = mmfusion.create_model("hf-hub:{name}")
    except Exception as error:
        sys.exit(f"{{type(error).__name__}}: {{error}}")
    print(float(sum(x.double().abs().sum() for x in model.state_dict().values())))
"""


def total(folder: Path) -> float:
    model = mmfusion.create_model(f"local-dir:{folder}")
    return float(sum(x.double().abs().sum() for x in model.state_dict().values()))


@pytest.mark.slow
def test_push_then_load_at_revisions_and_offline(hub: Hub, client: Callable[..., object], saved: Path) -> None:
    push = ["push", "--model", f"local-dir:{saved}", "--repo", "org/name"]
    done = client(*push, token=TOKEN)
    assert done.returncode == 0, done.stderr
    repository = hub.repositories["org/name"]
    assert repository.private and "hf-hub:org/name" in done.stdout
    first = repository.refs["main"]
    assert sorted(repository.commits[first]) == [
        *("README.md", "config.json", "files.json", "metrics.json", "model.safetensors")
    ]
    assert len(repository.commits) == 2, "one commit on top of the empty one"
    assert repository.commits[first]["model.safetensors"] == (saved / "model.safetensors").read_bytes()

    card = repository.commits[first]["README.md"].decode()
    assert 'from_pretrained("hf-hub:org/name")' in card and "local-dir" not in card
    assert 'from_pretrained("local-dir:FOLDER")' in (saved / "README.md").read_text()

    # without a token, a private repository looks like a missing one
    refused = client(LOAD.format(name="org/name"))
    assert refused.stderr.splitlines()[-1] == (
        "FileNotFoundError: 'hf-hub:org/name': the repository does not exist or is private; check the name, or "
        "log in with `hf auth login` and a token from the Hub's settings, or set HF_TOKEN."
    )
    loaded = client(LOAD.format(name="org/name"), token=TOKEN)
    assert loaded.returncode == 0, loaded.stderr
    assert float(loaded.stdout) == total(saved)

    # other weights on the same branch; the first commit and a card written by others are unchanged
    repository.commit("main", {"README.md": b"our own words"})
    before = total(saved)
    save_model(mmfusion.create_model("test_concat", num_classes=3), saved)
    assert client(*push, token=TOKEN).returncode == 0
    assert repository.commits[repository.refs["main"]]["README.md"] == b"our own words"
    assert float(client(LOAD.format(name="org/name"), token=TOKEN).stdout) == total(saved) != before
    assert float(client(LOAD.format(name=f"org/name@{first}"), token=TOKEN).stdout) == before
    missing = client(LOAD.format(name="org/name@v9"), token=TOKEN)
    assert "the repository has no revision 'v9'; remove it" in missing.stderr.splitlines()[-1]

    seen = len(hub.requests_seen)
    offline = client(LOAD.format(name="org/name"), HF_HUB_OFFLINE="1")
    assert float(offline.stdout) == total(saved) and len(hub.requests_seen) == seen
    nowhere = client(LOAD.format(name="org/name"), cache="empty", HF_HUB_OFFLINE="1")
    assert "it is not in the cache, and HF_HUB_OFFLINE is set" in nowhere.stderr.splitlines()[-1]
    unreachable = client(LOAD.format(name="org/name"), cache="empty", HF_ENDPOINT="http://127.0.0.1:9")
    assert "it is not in the cache, and the Hub is unreachable" in unreachable.stderr.splitlines()[-1]


def test_a_download_that_breaks_off_loads_nothing_and_goes_on(
    hub: Hub, client: Callable[..., object], saved: Path
) -> None:
    assert (
        client(
            "push", "--model", f"local-dir:{saved}", "--repo", "org/name", "--private", "false", token=TOKEN
        ).returncode
        == 0
    )
    assert not hub.repositories["org/name"].private
    hub.broken.add("model.safetensors")
    broken = client(LOAD.format(name="org/name"))
    assert broken.returncode != 0 and broken.stdout == ""
    assert broken.stderr.splitlines()[-1].startswith("FileNotFoundError: 'hf-hub:org/name': "), broken.stderr
    hub.broken.clear()
    whole = client(LOAD.format(name="org/name"))
    assert float(whole.stdout) == total(saved)


@pytest.mark.slow
def test_repositories_that_are_no_saved_models(
    hub: Hub, client: Callable[..., object], saved: Path, tmp_path: Path
) -> None:
    hub.repositories["org/other"] = Repository(private=False)
    hub.repositories["org/other"].commit("main", {"pytorch_model.bin": b"pickle", "README.md": b"hello"})
    other = client(LOAD.format(name="org/other"))
    assert "is not a saved model: it has no config.json" in other.stderr.splitlines()[-1]
    assert not any("pytorch_model.bin" in request for request in hub.requests_seen)
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    hub.repositories["org/half"] = Repository(private=False)
    hub.repositories["org/half"].commit("main", {"config.json": files["config.json"]})
    assert "has no model.safetensors" in client(LOAD.format(name="org/half")).stderr.splitlines()[-1]
    push = ["push", "--model", f"local-dir:{saved}", "--repo", "org/name"]
    refused = client(*push)
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "there is no access token; log in with `hf auth login`" in refused.stderr
    nowhere = client(*push, token=TOKEN, HF_ENDPOINT="http://127.0.0.1:9")
    assert nowhere.returncode == 2 and len(nowhere.stderr.splitlines()) == 1
    assert "org/name: the Hub cannot be reached" in nowhere.stderr
    config = json.loads(files["config.json"])
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text(json.dumps(config))
    with pytest.raises(FileNotFoundError, match="is not a saved model: it has no model"):
        mmfusion.push_to_hub(tmp_path / "empty", "org/name")


def test_a_model_whole_in_the_cache_is_loaded_whatever_the_hub_does(
    hub: Hub, client: Callable[..., object], saved: Path
) -> None:
    repository = hub.repositories["org/name"] = Repository(private=False)
    files = {path.name: path.read_bytes() for path in saved.iterdir()}
    repository.commit("main", {name: data for name, data in files.items() if name in HUB_FILES})
    hub.flipped.add("model.safetensors")  # damaged in transit but of the right length: the client keeps it
    loaded = client(LOAD.format(name="org/name"))
    assert loaded.returncode == 0 and float(loaded.stdout) == total(saved), loaded.stderr
    assert hub.requests_seen.count("GET /org/name/resolve/" + repository.refs["main"] + "/model.safetensors") == 2
    hub.dropping = True
    cached = client(LOAD.format(name="org/name"))
    assert cached.returncode == 0 and float(cached.stdout) == total(saved), cached.stderr
    assert "Using the cached copy" in cached.stderr
    hub.dropping = False
    # damaged in the repository: downloaded once more, and refused
    repository.commit("main", {"model.safetensors": files["model.safetensors"][:-1] + b"x"})
    refused = client(LOAD.format(name="org/name"))
    assert "model.safetensors was changed since the model was saved" in refused.stderr.splitlines()[-1]
    assert len([each for each in hub.requests_seen if each.startswith("GET") and "model.safetensors" in each]) == 4


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def flip(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")


def without_tokenizer(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"processor": {"tokenizer": True}}))
    (folder / "files.json").unlink()


def link_out(folder: Path) -> None:
    (folder / "README.md").unlink()
    (folder / "README.md").symlink_to("/etc/hostname")


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (cut, r"model\.safetensors is damaged"),
        (flip, r"model\.safetensors is damaged"),
        (without_tokenizer, r"tokenizer\.json does not exist"),
        (link_out, r"README\.md is not a file of the folder"),
        (lambda folder: (folder / "metrics.json").write_text("{"), r"metrics\.json is not JSON"),
        (lambda folder: (folder / "README.md").write_bytes(b"\xff"), r"README\.md is not UTF-8 text"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is not"),
    ],
)
def test_damage_is_not_published(
    saved: Path, damage: Callable[[Path], object], told: str, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    damage(saved)
    with pytest.raises((ValueError, FileNotFoundError), match=told) as caught:
        mmfusion.push_to_hub(saved, "org/name")
    assert "network" not in str(caught.value)


def test_a_fault_of_this_machine_is_not_called_one_of_the_network(
    saved: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.get_token", lambda: TOKEN)
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", full)
    with pytest.raises(OSError, match=r"a file on this machine: .*No space left") as caught:
        mmfusion.push_to_hub(saved, "org/name")
    assert not isinstance(caught.value, ConnectionError)


def test_a_full_disk_is_told_of_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mmfusion.repositories.answers", lambda: True)
    monkeypatch.setattr("huggingface_hub.snapshot_download", full)
    with pytest.raises(FileNotFoundError, match=r"'hf-hub:org/name': the disk is full, and the Hub"):
        mmfusion.create_model("hf-hub:org/name")
