"""Folders as names of trained models, and the files of a push."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import mmfusion
from mmfusion.artifacts.config import PushConfig
from mmfusion.artifacts.folder import resolve_artifact
from mmfusion.artifacts.locating import portable_name
from mmfusion.artifacts.push import PushPlan, push
from mmfusion.cli import main as cli
from mmfusion.data import Processor
from mmfusion.training.build import is_saved

PROCESSOR = Processor(["a", "b", "c"], image_size=32)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder, ``runs/first``, in the working directory."""
    monkeypatch.chdir(tmp_path)
    model = mmfusion.create_model("test_image", processor=PROCESSOR)
    metadata = {"card": {"dataset": "Toy", "license": "cc-by-4.0"}}
    mmfusion.save_pretrained(model, "runs/first/best", PROCESSOR, metadata=metadata)
    return Path("runs/first")


def test_every_spelling_is_the_same_model(run: Path) -> None:
    best = (run / "best").resolve()
    spellings = [
        "runs/first",
        "runs/first/best",
        "./runs/first",
        run,
        run / "best",
        run.resolve(),
        "local-dir:runs/first",
    ]
    assert {resolve_artifact(name).resolve() for name in spellings} == {best}
    logits = []
    for name in spellings:
        model = mmfusion.Predictor.from_pretrained(name, device="cpu").network()
        logits.append(model(torch.ones(1, 3, 32, 32)).logits)
    assert all(torch.equal(each, logits[0]) for each in logits)
    both = mmfusion.Predictor.from_pretrained([run, "runs/first/best"], device="cpu")
    assert len(both.members) == 2 and both.labels == ["a", "b", "c"]
    with pytest.raises(ValueError, match="write 'local-dir:runs/first'"):  # there, a name may be an architecture
        mmfusion.create_model("runs/first")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("runs/second", "'runs/second': there is no such folder; a model on the Hub is 'hf-hub:runs/second'"),
        ("runs", "'runs': runs has no saved model"),
        (Path("gone"), "'gone': the folder gone does not exist"),
        ("local-dir:gone", "'local-dir:gone': the folder gone does not exist"),
    ],
)
def test_what_is_no_model_is_told(run: Path, name: str | Path, told: str) -> None:
    with pytest.raises(FileNotFoundError, match=told):
        resolve_artifact(name)


def test_a_folder_that_has_the_name_of_shipped_weights(run: Path) -> None:
    (name,) = mmfusion.list_pretrained("mibf_lite0")
    with warnings.catch_warnings(action="error"):
        assert resolve_artifact(name).parent.name == "checkpoints"
    run.rename(name)
    with pytest.warns(UserWarning, match=rf"'{name}' refers to the folder .*best; to load the package's weights"):
        assert resolve_artifact(name) == Path(name, "best")
    # if a name may be an architecture, the folder does not take precedence
    assert mmfusion.create_model(name).num_classes == 7


def test_training_goes_on_from_a_folder(run: Path) -> None:
    assert is_saved("runs/first") and is_saved("local-dir:runs/first") and is_saved("mibf_lite0.ham10000")
    assert not is_saved("mibf_lite0") and not is_saved("nothing")
    run.rename("mine")
    assert is_saved("mine")
    Path("mine").rename("test_image")
    assert not is_saved("test_image")  # an architecture, regardless of the working directory


def test_names_that_leave_the_machine(run: Path) -> None:
    assert portable_name("local-dir:/home/me/runs/x") == "local-dir:x"
    assert portable_name(str(run.resolve())) == portable_name("runs/first") == "local-dir:first"
    assert portable_name("mibf_lite0.ham10000") == "mibf_lite0.ham10000"
    assert portable_name("hf-hub:org/name@v1") == "hf-hub:org/name@v1"


def test_class_names_stand_where_others_look(run: Path) -> None:
    config = json.loads((run / "best" / "config.json").read_text())
    assert config["label_names"] == config["processor"]["labels"] == ["a", "b", "c"]
    del config["label_names"]  # a file of an earlier version
    (run / "best" / "config.json").write_text(json.dumps(config))
    (run / "best" / "files.json").unlink()
    assert mmfusion.Predictor.from_pretrained(run, device="cpu").labels == ["a", "b", "c"]


def test_a_dry_run_lists_and_sends_nothing(
    run: Path, no_network: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    (run / "best" / "notes.txt").write_text("stays at home")
    plan = push(PushConfig(model="runs/first", repo="org/name", dry_run=True))
    assert isinstance(plan, PushPlan)
    best = run / "best"
    assert set(plan.files) == {"README.md", "config.json", "files.json", "model.safetensors"}
    for name in ("config.json", "model.safetensors"):
        assert plan.files[name] == (best / name).stat().st_size
    assert plan.license == "cc-by-4.0" and plan.card is not None and plan.files["README.md"] == len(plan.card.encode())
    assert 'from_pretrained("hf-hub:org/name")' in plan.card
    assert cli.main(["push", "--model", "runs/first", "--repo", "org/name", "--dry_run"]) == 0
    printed = capsys.readouterr().out
    assert f"{sum(plan.files.values()):,} bytes" in printed and "license: cc-by-4.0" in printed
    assert printed.endswith("nothing was sent (dry_run)\n")


def test_commands_take_a_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", "runs/first"]) == 0
    assert "saved model, architecture test_image" in capsys.readouterr().out


def test_parts_of_any_kind_by_name() -> None:
    makers: list[Callable[[], object]] = [
        lambda: mmfusion.create("head", "mlp", in_features=8, num_classes=3),
        lambda: mmfusion.create_head("mlp", in_features=8, num_classes=3),
    ]
    assert str(makers[0]()) == str(makers[1]())
    model = mmfusion.create("model", "test_image", num_classes=2)
    assert model.architecture == "test_image" and model.num_classes == 2
    with pytest.raises(ValueError, match="Unknown kind 'heads'"):
        mmfusion.create("heads", "mlp")
