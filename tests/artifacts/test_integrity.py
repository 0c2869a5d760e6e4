"""Refused model folders: edited, contradictory, larger than their weights, or using the network."""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import mmfusion
from mmfusion.artifacts.integrity import write_files
from mmfusion.cli import main as cli
from mmfusion.cli.parsing import parse
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.files import sha256
from mmfusion.models import load_model
from mmfusion.repositories import no_network

Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model of image and text."""
    torch.manual_seed(0)
    processor = Processor(["no", "yes"], image_size=16, tokenizer=fit_wordpiece(["a red spot"] * 5), max_length=16)
    model = mmfusion.create_model("test_mibf", processor=processor)
    return mmfusion.save_pretrained(model, tmp_path_factory.mktemp("sound") / "m", processor)


@pytest.fixture
def folder(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "m"))


def edit(folder: Path, change: Change, name: str = "config.json") -> None:
    values = json.loads((folder / name).read_text())
    change(values)
    (folder / name).write_text(json.dumps(values))


def reverse_labels(config: dict[str, Any]) -> None:
    config["processor"]["labels"].reverse()


def test_files_json_holds_what_loading_reads(folder: Path) -> None:
    hashes = json.loads((folder / "files.json").read_text())["sha256"]
    assert set(hashes) == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert all(sha256(folder / name) == hash for name, hash in hashes.items())
    for name, text in (("README.md", "mine"), ("metrics.json", "{}"), ("notes.txt", "x")):
        (folder / name).write_text(text)
    with warnings.catch_warnings(action="error"):
        mmfusion.Predictor.from_pretrained(folder, device="cpu")
    (folder / "files.json").unlink()  # as earlier versions wrote folders
    mmfusion.Predictor.from_pretrained(folder, device="cpu")


def swap_pieces(tokenizer: dict[str, Any]) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["red"], vocabulary["spot"] = vocabulary["spot"], vocabulary["red"]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("config.json", reverse_labels),
        ("config.json", lambda config: config["processor"].update(mean=[0.1, 0.2, 0.3])),
        ("config.json", lambda config: config["calibration"] or config.update(tta=True)),
        ("tokenizer.json", swap_pieces),
        ("tokenizer_config.json", lambda config: config.update(known_words=["red"])),
    ],
)
def test_an_edit_is_refused_unless_it_is_allowed(folder: Path, name: str, change: Change) -> None:
    edit(folder, change, name)
    with pytest.raises(ValueError, match=rf"{name}.*--allow_edited \(in Python allow_edited=True\)"):
        mmfusion.Predictor.from_pretrained(folder, device="cpu")
    with pytest.warns(UserWarning, match=f"{name}.*accepted"):
        predictor = mmfusion.Predictor.from_pretrained(folder, device="cpu", allow_edited=True)
    assert predictor.labels == json.loads((folder / "config.json").read_text())["processor"]["labels"]
    with pytest.raises(ValueError, match="allow_edited"):  # it was valid only for that call
        mmfusion.Predictor.from_pretrained(folder, device="cpu")


def test_a_file_that_was_added_or_removed(folder: Path) -> None:
    (folder / "added_tokens.json").write_text('{"melanoma": 5}')
    with pytest.raises(ValueError, match=r"added_tokens\.json was added since the model was saved"):
        mmfusion.Predictor.from_pretrained(folder, device="cpu")
    (folder / "added_tokens.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(ValueError, match=r"tokenizer_config\.json is missing"):
        mmfusion.Predictor.from_pretrained(folder, device="cpu")


def test_the_command_line_allows_edits_for_one_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit(folder, reverse_labels)
    assert cli.main(["info", str(folder)]) == 2
    assert "contradict each other" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="accepted"):
        assert cli.main(["info", str(folder), "--allow_edited"]) == 0
    assert cli.main(["info", str(folder)]) == 2
    parse("info", [str(folder), "--allow_edited"])  # reading it has no effect on later calls
    with pytest.raises(ValueError, match="allow_edited"):
        mmfusion.Predictor.from_pretrained(folder)
    parse("audit", ["--data", "x", "--label_errors", str(folder), "--allow_edited"])  # audit is given a model too
    assert cli.main(["split", "--data", "x", "--output", "y", "--allow_edited"]) == 2
    assert "Unknown argument --allow_edited" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(label_names=["yes", "no"]), "processor.labels .* and label_names .* contradict"),
        (lambda c: c.update(training={"labels": ["a", "b"]}), "and training.labels .* contradict"),
        (lambda c: c.update(mean=[0.5, 0.5, 0.5]), "mean .* and the processor's .* contradict"),
        (lambda c: c.update(input_size=[3, 99, 99]), "input_size .* contradict"),
    ],
)
def test_facts_that_are_told_twice_agree(folder: Path, change: Change, words: str) -> None:
    edit(folder, change)
    (folder / "files.json").unlink()
    with pytest.raises(ValueError, match=words):
        mmfusion.Predictor.from_pretrained(folder, device="cpu")


def nest(config: dict[str, Any]) -> None:
    for _ in range(300):
        config["model"]["head_args"] = {"a": config["model"]["head_args"]}


def text_config(config: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["model"]["text_args"]["config"]
    return found


#: change -> part of the error. Whoever made it may also have rewritten files.json.
ATTACKS: dict[str, tuple[Change, str]] = {
    "layers": (lambda c: text_config(c).update(num_hidden_layers=100_000), "expected 0 to 512"),
    "fewer layers": (
        lambda c: text_config(c).update(num_hidden_layers=500),
        "many times the size of model.safetensors",
    ),
    "width": (lambda c: text_config(c).update(hidden_size=60_000), "many times the size of model.safetensors"),
    "pixels": (lambda c: c["processor"].update(image_size=10**9), "expected 0 to 4,096"),
    "classes": (lambda c: c["model"].update(num_classes=10**12), "expected 0 to 100,000"),
    "negative": (lambda c: c["model"].update(dim=-1), "expected 0 to 65,536"),
    "word pieces": (lambda c: text_config(c).update(vocab_size=10**9), "expected 0 to 4,000,000"),
    "encoder": (lambda c: c["model"].update(image_encoder="vit_giant_patch14_224"), "many times the size"),
    "type": (lambda c: text_config(c).update(hidden_size="big"), "'hidden_size' expected int"),
    "activation": (lambda c: text_config(c).update(hidden_act="none such"), "KeyError 'none such'"),
    "bool": (lambda c: c["model"].update(image_encoder=True), "model.image_encoder is True, not a text"),
    "list": (lambda c: c.update(training=[1]), r"training is \[1\], not an object"),
    "data": (lambda c: c.update(training={"dataset": {"views": "ab"}}), "training.dataset.views is 'ab', not a list"),
    "labels": (lambda c: c["processor"].update(labels="abcde"), "processor.labels is 'abcde', not a list"),
    "null": (lambda c: c["processor"].update(labels=["no", None]), "processor.labels has values that are not texts"),
    "temperature": (
        lambda c: c.update(calibration={"temperature": 10**400, "fitted_on": "val", "n": 1}),
        "temperature",
    ),
    "cold": (
        lambda c: c.update(calibration={"temperature": -(10**400), "fitted_on": "val", "n": 1}),
        "is not a temperature above 0",
    ),
    "prior": (
        lambda c: c.update(
            calibration={
                "temperature": 1,
                "fitted_on": "val",
                "n": 1,
                "prior_strength": 1,
                "log_prior": [0, -(10**400)],
            }
        ),
        "prior_strength and log_prior must be a number and 2",
    ),
    "threshold": (
        lambda c: c.update(
            decisions={
                "points": [{"alarm": ["yes"], "rule": "sensitivity>=0.9", "threshold": 10**400, "fitted_on": 1}],
                "by_group": None,
            }
        ),
        "entry 'decisions'",
    ),
    "template": (lambda c: c["processor"].update(text_template="," * 2_000_000), "longer than 10,000 characters"),
    "long path": (lambda c: text_config(c).update(vocab_file="../" + "a" * 5000), "a path outside its folder"),
    "long name": (lambda c: c["model"]["head_args"].update({"a" * 5000: 10**12}), "to 1,000,000,000"),
    "long version": (lambda c: c.update(format_version="1" * 5000), "this mmfusion supports"),
    "depth": (nest, "is nested more than 40 levels deep"),
    "tokenizer": (lambda c: c["processor"].update(tokenizer=False), "reads text, but the processor has no tokenizer"),
    "image": (lambda c: c["processor"].update(image_size=None), "reads images, but the processor has no image_size"),
    "network": (
        lambda c: text_config(c).update(model_type="dpt", backbone="a/b"),
        "unsupported transformers type 'dpt'",
    ),
}


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("name", ATTACKS)
def test_what_no_model_is(folder: Path, name: str) -> None:
    change, words = ATTACKS[name]
    edit(folder, change)
    write_files(folder)
    with pytest.raises(ValueError, match=words) as caught:
        mmfusion.Predictor.from_pretrained(folder, device="cpu")
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_large_or_deep_file_is_not_read(folder: Path) -> None:
    (folder / "files.json").unlink()
    with (folder / "config.json").open("r+b") as file:
        file.truncate(6 << 30)  # sparse
    with pytest.raises(ValueError, match="6,442,450,944 bytes; at most 33,554,432 are allowed"):
        load_model(folder)
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="nested too deeply"):
        load_model(folder)
    (folder / "config.json").write_text('{"n": ' + "9" * 5000 + "}")
    with pytest.raises(ValueError, match=r"config\.json is not readable JSON"):
        load_model(folder)


def grow(tokenizer: dict[str, Any]) -> None:
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "aaaa"}
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [step] * 20}


def beyond(tokenizer: dict[str, Any]) -> None:
    tokenizer["model"]["vocab"]["red"] = 100_000


@pytest.mark.parametrize(("change", "words"), [(grow, "times as long"), (beyond, "has 100001 word pieces")])
def test_a_tokenizer_that_would_fail_later(folder: Path, change: Change, words: str) -> None:
    edit(folder, change, "tokenizer.json")
    write_files(folder)
    with pytest.raises(ValueError, match=words):
        mmfusion.Predictor.from_pretrained(folder, device="cpu")


def test_the_network_is_closed_to_the_thread_that_builds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even for an encoder type that was allowed by mistake."""
    import socket

    def ask(*_: object, **__: object) -> None:
        socket.create_connection(("127.0.0.1", 9), timeout=1)

    monkeypatch.setattr(transformers.AutoConfig, "for_model", ask)
    with pytest.raises(ValueError, match=r"config\.json: .*tried to use the network"):
        load_model(folder)
    with no_network(), pytest.raises(OSError, match="tried to use the network"):
        socket.getaddrinfo("localhost", 80)
    assert socket.getaddrinfo("127.0.0.1", 80)


@pytest.mark.parametrize("name", ["predict", "embed", "explain"])
def test_paths_of_a_config_do_not_say_what_is_read(folder: Path, tmp_path: Path, name: str, capsys: Any) -> None:
    dataset = {"table": "../../other.csv", "image_root": "/elsewhere", "labels_table": "/x", "split_table": "/y"}
    edit(folder, lambda config: config.update(training={"dataset": dataset}))
    write_files(folder)
    from mmfusion.cli.parsing import parse

    config = parse(name, ["--model", str(folder), "--data", str(tmp_path), "--output", "out"])
    assert all(getattr(config.dataset, key) is None for key in dataset)


def test_a_save_that_is_cut_short_leaves_no_list_of_other_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model(folder)
    monkeypatch.setattr("mmfusion.models.saving.write_artifact", lambda *_: None)
    mmfusion.models.save_model(model, folder)
    assert not (folder / "files.json").exists()
