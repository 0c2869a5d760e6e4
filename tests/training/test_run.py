from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import set_seed

from mmfusion import registry
from mmfusion.data import DatasetConfig, Processor
from mmfusion.hardware import resolve_precision
from mmfusion.inference.predictor import Predictor
from mmfusion.models import create_model, list_models, load_model
from mmfusion.models.factory import resolve_config
from mmfusion.models.parts import check_parts
from mmfusion.outputs import Features, Fused
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig, TrainResult, checkpoints, train
from mmfusion.training.build import build_predictor, with_task
from mmfusion.training.check import check_settings
from mmfusion.training.rows import read_training_cases
from mmfusion.training.unread import warnings_of

MakeConfig = Callable[..., RunConfig]
ROOT = Path(__file__).parents[2]


def records(folder: str | Path) -> list[dict[str, Any]]:
    lines = (Path(folder) / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


def assert_same_run(folder: str | Path, other: str | Path) -> None:
    """Equal metrics of every epoch, weights of both models, and test metrics."""
    folder, other = Path(folder), Path(other)
    assert records(folder) == records(other)
    for saved in ("best", "last"):
        a, b = (load_file(f / saved / "model.safetensors") for f in (folder, other))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)
    assert json.loads((folder / "metrics.json").read_text()) == json.loads((other / "metrics.json").read_text())
    assert (folder / "predictions.csv").read_text() == (other / "predictions.csv").read_text()


def command(config: RunConfig, *launcher: str) -> list[str]:
    """The command line of a run, with its options in a file."""
    path = Path(f"{config.output}.yaml")
    path.write_text(yaml.safe_dump(asdict(config)))
    return [sys.executable, *launcher, "-m", "mmfusion", "train", "--config", str(path)]


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a run in separate processes, all of which end with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(config: RunConfig, *launcher: str) -> subprocess.Popen[str]:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true"}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command(config, *launcher), env=environment, start_new_session=True, **pipes)
        started.append(process)
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_a_run_leaves_everything_in_its_folder(
    make_config: MakeConfig, toy: Path, capsys: Any, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_config(loss="mp", epochs=3)
    result = train(config)
    folder = Path(config.output)
    assert isinstance(result, TrainResult)
    assert yaml.safe_load((folder / "config.yaml").read_text()) == asdict(with_task(config))
    assert [record["epoch"] for record in records(folder)] == [1, 2, 3]
    expected = {"best", "last", "checkpoints", "config.yaml", "metrics.jsonl", "metrics.json", "predictions.csv"}
    assert expected | {"confusion_matrix.png", "roc.png", "training_curves.png"} <= {p.name for p in folder.iterdir()}
    assert [state.name for state in checkpoints.states(folder / "checkpoints")] == ["checkpoint-12", "checkpoint-18"]
    for saved in (result.best, result.last):
        assert not [p for p in saved.iterdir() if p.suffix in (".pt", ".pth", ".bin", ".pkl")]
        model, processor = load_model(saved), Processor.from_pretrained(saved)
        assert model.num_classes == 3 and processor.labels == ["a", "b", "c"]
        assert len(processor.tokenizer) == model.config["text_args"]["config"]["vocab_size"]
    assert result.test is not None and result.test["n"] == 6
    stored = json.loads((result.best / "metrics.json").read_text())
    assert stored["split"] == "test" and stored["epoch"] == result.best_epoch and stored["val"] == result.val
    assert result.test == json.loads((folder / "metrics.json").read_text())
    provenance = json.loads((result.best / "config.json").read_text())["training"]
    assert provenance["rows"] == {"train": 24, "val": 7, "test": 6}
    assert provenance["seed"] == 0 and len(provenance["data_fingerprint"]) == 64
    header, first = (folder / "split.csv").read_text().splitlines()[:2]
    assert header == "id,split,fingerprint" and first.startswith("case0.png,train,")
    contents, groups, *printed = capsys.readouterr().out.splitlines()
    assert contents == "24 training rows: image 24, text 19"
    assert groups.startswith("note: no column identifies the rows of a patient")
    assert printed[0].startswith("training test_mibf (") and "rows: 24 train, 7 val, 6 test" in printed[0]
    assert [line.partition(":")[0] for line in printed[1:3]] == ["image tower test_resnet", "text tower bert_tiny"]
    assert [line[:9] for line in printed[3:]] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert "not calibrated: only 7 validation rows; 50 are needed" in caplog.messages
    measured, best = result.summary().splitlines()
    assert measured.startswith("test: accuracy ") and f"nll {result.test['nll']:.3f} [" in measured
    assert best == f"best epoch {result.best_epoch} of 3; saved in {result.best}"
    assert result.evaluation.to_dict() == result.test and result.split == "test"
    assert result.predictor is result.predictor and result.predictor.labels == ["a", "b", "c"]
    assert result.predictor.provenance == provenance and not result.predictor.model.training


def test_the_best_model_is_calibrated_on_validation_rows(make_config: MakeConfig, monkeypatch: Any) -> None:
    monkeypatch.setattr("mmfusion.evaluation.calibration.FEWEST", 7)
    predict_cases, passes = Predictor.predict_cases, []
    monkeypatch.setattr(
        Predictor, "predict_cases", lambda self, *rows, **how: passes.append(how) or predict_cases(self, *rows, **how)
    )
    decided = {"prior_strength": 0.5, "tta": True, "sensitivity": 0.8}
    result = train(make_config(epochs=2, lr=1e-5, model="plain", **decided))
    assert len(passes) == 2  # one over the validation rows, one over the test rows
    config = json.loads((result.best / "config.json").read_text())["calibration"]
    assert config["fitted_on"] == "val" and config["n"] == 7 and config["temperature"] != 1
    assert config["prior_strength"] == 0.5 and np.exp(config["log_prior"]) == pytest.approx([1 / 3] * 3)
    last = json.loads((result.last / "config.json").read_text())
    assert last["calibration"] is None and Predictor.from_pretrained(f"local-dir:{result.best}").calibration == config
    assert result.test is not None and result.test["calibration"]["temperature"] == config["temperature"]
    val = result.test["calibration"]["before"]["nll"], result.test["calibration"]["after"]["nll"]
    assert result.test["nll"] == pytest.approx(val[1], abs=1e-6) and val[0] != val[1]
    told = f"temperature {config['temperature']:.3f} from 7 val rows, prior restored with strength 0.5"
    card = (result.best / "README.md").read_text()
    assert f"Calibrated: {told}\n- Averages over test-time augmentations" in card
    assert f"{told}, mean over test-time augmentations; saved in" in result.summary()
    assert result.predictor.calibration == config and result.predictor.tta and result.tta
    assert result.evaluation.thresholds.wanted == 0.8 and result.evaluation.thresholds.fitted_on == 7
    assert "Thresholds for a sensitivity of 80%, chosen on 7 validation rows" in card


def test_what_validation_rows_choose_needs_some(make_config: MakeConfig, toy: Path, tmp_path: Path) -> None:
    table = pd.read_csv(toy / "cases.csv")
    table[table["split"] == "train"].to_csv(tmp_path / "cases.csv", index=False)
    config = replace(make_config(tta="auto"), data=str(tmp_path), dataset=DatasetConfig(image_root=str(toy)))
    with pytest.raises(ValueError, match=r"train\.tta needs validation rows, but there are none; set it to false"):
        train(config)


def test_it_learns(make_config: MakeConfig) -> None:
    result = train(make_config(epochs=5, model="plain"))
    assert result.history[-1]["train_loss"] < 0.6 * result.history[0]["train_loss"]
    assert result.val["accuracy"] >= 0.8


def test_the_seed_fixes_everything(make_config: MakeConfig) -> None:
    first, again = make_config("first", loss="mp"), make_config("again", loss="mp", workers=1)
    train(first)
    train(again)
    assert_same_run(first.output, again.output)
    other = replace(make_config("other", loss="mp"), seed=1)
    train(other)
    assert records(other.output) != records(first.output)


@pytest.mark.parametrize("freeze", [False, True])
def test_a_half_written_state_is_skipped_and_the_end_is_the_same(
    make_config: MakeConfig, capsys: Any, freeze: bool
) -> None:
    """It resumes from the mid-epoch state before it, with dropout, augmentation and the loss's ramp."""
    options = {"loss": "mp", "loss_args": {"warmup_steps": 9}, "save_steps": 4, "sampler": "balanced"}
    options["freeze_encoders"] = freeze
    whole, killed = make_config("whole", **options), make_config("killed", **options, resume=True)
    train(whole)
    shutil.copytree(whole.output, killed.output)
    states = Path(killed.output) / "checkpoints"
    assert [state.name for state in checkpoints.states(states)] == ["checkpoint-8", "checkpoint-12"]
    optimizer = states / "checkpoint-12/optimizer.pt"
    optimizer.write_bytes(optimizer.read_bytes()[:1000])
    shutil.rmtree(Path(killed.output) / "last")
    (Path(killed.output) / "predictions.csv").unlink()
    capsys.readouterr()
    train(killed)
    assert "resuming from" in (printed := capsys.readouterr().out) and "checkpoint-8 (1 epochs done)" in printed
    assert_same_run(killed.output, whole.output)


def test_a_finished_run_is_not_trained_again(make_config: MakeConfig, capsys: Any) -> None:
    config = make_config(patience=1, epochs=9, lr=1e-9, model="plain")
    first = train(config)
    assert len(first.history) == 2
    capsys.readouterr()
    again = train(replace(config, train=replace(config.train, resume=True)))
    assert "epoch 3" not in capsys.readouterr().out
    assert again.history == first.history and again.test == first.test


@pytest.mark.slow
def test_two_processes_equal_one_with_twice_the_batch(make_config: MakeConfig, start: Any) -> None:
    """Seven validation rows on two processes: each counts once."""
    options = {"model": "plain", "ema": 0.9, "head_epochs": 1, "freeze_stages": 0}
    one, two = make_config("one", batch_size=8, **options), make_config("two", batch_size=4, **options)
    process = start(two, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-3000:]
    assert "on cpu x 2 processes" in printed
    assert [line[:9] for line in printed.splitlines() if line.startswith("epoch")] == ["epoch 1/2", "epoch 2/2"]
    assert {p.name for p in (Path(two.output) / "checkpoints/checkpoint-6").glob("rng_state*")} == {
        "rng_state_0.pth",
        "rng_state_1.pth",
    }
    train(one)
    for pair in zip(records(two.output), records(one.output), strict=True):
        # a modality is exchanged within a batch, whose size differs
        a, b = ({name: x for name, x in record.items() if not name.startswith("moved_by")} for record in pair)
        assert a == pytest.approx(b, rel=1e-4)
    a, b = (load_file(Path(config.output) / "last/model.safetensors") for config in (one, two))
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_options_younger_than_a_run_have_their_defaults(trained: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(trained.output, tmp_path / "run")
    path = tmp_path / "run/config.yaml"
    path.write_text("".join(line for line in path.open() if not line.startswith(("  ema:", "  layer_decay:"))))
    config = replace(trained, output=str(tmp_path / "run"), train=replace(trained.train, resume=True))
    assert len(train(config).history) == 1
    changed = replace(config, train=replace(config.train, ema=0.9))
    path.write_text("".join(line for line in path.open() if not line.startswith("  ema:")))
    with pytest.raises(ValueError, match=r"a different configuration: train\.ema \(None -> 0\.9\); restore"):
        train(changed)


def test_a_folder_with_a_run_is_not_written_over(trained: RunConfig) -> None:
    with pytest.raises(FileExistsError, match=r"already contains a run; resume it with --train\.resume true"):
        train(trained)
    changed = replace(trained, seed=3, train=replace(trained.train, resume=True, lr=0.5, workers=2))
    with pytest.raises(ValueError, match=r"configuration: seed \(0 -> 3\), train\.lr \(0\.003 -> 0\.5\); restore"):
        train(changed)


def test_a_run_does_not_go_on_with_other_data(trained: RunConfig, toy: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy, data)
    table = data / "cases.csv"
    table.write_text(table.read_text().replace("case3.png,", "case4.png,", 1).replace("case4.png,", "case3.png,", 1))
    table.write_text(table.read_text().replace("red spot", "dark spot", 1))
    with pytest.raises(ValueError, match="cannot be resumed: the data changed"):
        train(replace(trained, data=str(data), train=replace(trained.train, resume=True)))


def test_a_run_does_not_go_on_with_another_number_of_processes(trained: RunConfig, tmp_path: Path) -> None:
    shutil.copytree(trained.output, tmp_path / "run")
    config = replace(trained, output=str(tmp_path / "run"), train=replace(trained.train, resume=True))
    path = tmp_path / "run/provenance.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "processes": 2}))
    with pytest.raises(ValueError, match=r"cannot be resumed with 1 process\(es\): it started with 2"):
        train(config)


def write_table(toy: Path, folder: Path, keep: Callable[[list[str]], bool], bad: str = "") -> Path:
    shutil.copytree(toy, folder)
    header, *lines = (folder / "cases.csv").read_text().splitlines()
    kept = [line for line in lines if keep(line.split(","))]
    (folder / "cases.csv").write_text("\n".join([header, *kept, *([bad] if bad else [])]) + "\n")
    return folder


@pytest.mark.parametrize(
    ("keep", "options", "message"),
    [
        (lambda cells: cells[-1] != "train", {}, "no rows of the split 'train'|unknown label"),
        (lambda cells: cells[-2] == "a", {}, r"only one class, \['a'\]"),
        (lambda cells: True, {"batch_size": 25}, "train.batch_size is 25, but there are only 24 training rows"),
        (lambda cells: cells[-1] != "val", {"patience": 2}, "train.patience needs validation rows"),
    ],
)
def test_data_that_cannot_be_trained_on(
    make_config: MakeConfig, toy: Path, tmp_path: Path, keep: Any, options: dict[str, Any], message: str
) -> None:
    config = replace(make_config(**options), data=str(write_table(toy, tmp_path / "data", keep)))
    with pytest.raises(ValueError, match=message):
        train(config)
    assert not Path(config.output).exists()


def test_a_folder_of_one_class_asks_for_the_table_of_labels(make_config: MakeConfig, toy: Path, tmp_path: Path) -> None:
    (tmp_path / "patient" / "T2_sag").mkdir(parents=True)  # exported scans, whose labels are in another place
    for name in ("case0.png", "case1.png", "case2.png"):
        shutil.copy(toy / name, tmp_path / "patient" / "T2_sag")
    with pytest.raises(ValueError, match=r"only one class, \['T2_sag'\].*folder names are.*dataset\.table"):
        train(replace(make_config(), data=str(tmp_path / "patient"), model=ModelConfig(name="test_image")))


def test_bad_rows_stop_the_run_or_are_left_out(make_config: MakeConfig, toy: Path, tmp_path: Path) -> None:
    data = write_table(toy, tmp_path / "data", lambda cells: True, bad="broken.png,a spot,a,train")
    (data / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    config = replace(make_config(epochs=1, model="plain"), data=str(data))
    with pytest.raises(ValueError, match=r"1 problem in 1 of 38 rows(.|\n)*broken\.png.*cannot be decoded"):
        train(config)
    assert not Path(config.output).exists()
    result = train(replace(config, dataset=DatasetConfig(on_bad_row="skip")))
    assert json.loads((result.folder / "provenance.json").read_text())["rows"]["train"] == 24


def test_without_validation_and_test_rows(make_config: MakeConfig, toy: Path, tmp_path: Path) -> None:
    data = write_table(toy, tmp_path / "data", lambda cells: cells[-1] == "train")
    result = train(replace(make_config(model="plain"), data=str(data)))
    assert result.best_epoch == 2 and result.val == {} and result.test is None
    a, b = (load_file(folder / "model.safetensors") for folder in (result.best, result.last))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_setting_validates_itself_and_where_it_is_set_later(make_config: MakeConfig) -> None:
    with pytest.raises(ValueError, match=r"^train\.epochs must be at least 1; got 0\.$"):
        TrainConfig(epochs=0)
    with pytest.raises(ValueError, match=r"^train\.patience must be at least 1, or null; got 0\.$"):
        TrainConfig(patience=0)
    with pytest.raises(ValueError, match=r"^model\.modality_dropout must be at least 0 and below 1; got 1\.0\.$"):
        ModelConfig(modality_dropout=1.0)
    with pytest.raises(ValueError, match=r"^processor\.max_length must be at least 3; got 2\.$"):
        ProcessorConfig(max_length=2)
    config = make_config()
    config.train.lr = 0.0
    with pytest.raises(ValueError, match=r"^train\.lr must be above 0; got 0\.0\.$"):
        check_settings(config)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("gradient_accumulation", 0),
        ("lr", 0.0),
        ("warmup_ratio", 1.5),
        ("grad_clip", -1.0),
        ("sampler", "weighted"),
        ("metric", "acc"),
        ("patience", 0),
        ("save_steps", 0),
        ("workers", -1),
        ("precision", "fp8"),
    ],
)
def test_settings_out_of_range(make_config: MakeConfig, name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"train\.{name} must be .*; got {value!r}\."):
        train(make_config(**{name: value}))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": "cee"}, ValueError, "Unknown loss 'cee'; did you mean 'ce'"),
        ({"loss": "focal", "loss_args": {"gama": 1}}, TypeError, "loss 'focal': .*'gama'; it takes .*gamma"),
        ({"model": {"name": "test_mibff"}}, ValueError, "Unknown model 'test_mibff'; did you mean 'test_mibf'"),
        (
            {"model": {"name": "test_mibf", "fusion": "gatde"}},
            ValueError,
            "Unknown fusion 'gatde'; did you mean 'gated'",
        ),
        ({"model": {"name": "test_mibf", "head": "mpl"}}, ValueError, "Unknown head 'mpl'; did you mean 'mlp'"),
        (
            {"model": {"name": "test_mibf", "fusion_args": {"num_heds": 2}}},
            TypeError,
            "fusion 'ibfa': .*'num_heds'; it takes .*num_heads",
        ),
        ({"model": {"name": "test_mibf", "stem": "2.5d"}}, TypeError, "image_tower 'single' takes no stem"),
        (
            {"model": {"name": "test_mibf", "image_encoder": "resnet18x"}},
            ValueError,
            "Unknown image_encoder 'resnet18x'; did you mean 'resnet18'",
        ),
        ({"model": {"name": "test_mibf", "text_encoder": "bert_tinny"}}, ValueError, "did you mean 'bert_tiny'"),
        ({"model": {"name": "test_mibf", "text_encoder": "none"}, "loss": "mp"}, ValueError, "aux_heads=True needs"),
        ({"model": {"name": "test_mibf", "fusion": "none"}}, ValueError, "two sides need a fusion block"),
    ],
)
def test_unknown_names_fail_before_anything_is_read_or_built(
    make_config: MakeConfig, monkeypatch: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    for name in ("mmfusion.training.run.read_training_cases", "mmfusion.training.build.create_model"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("too late"))
    config = make_config(**options)
    with pytest.raises(error, match=message):
        train(config)
    assert not Path(config.output).exists()


@pytest.mark.parametrize("name", list_models())
def test_the_configuration_of_every_architecture_is_known_without_building_it(name: str) -> None:
    config = resolve_config(name, head="linear", head_args={}, aux_heads=False)
    assert config["head"] == "linear"
    check_parts(config)


def test_the_configuration_is_that_of_the_model() -> None:
    overrides: dict[str, Any] = {"fusion": "gated", "dim": 16, "text_args": {"vocab_size": 50}}
    model, config = create_model("test_mibf", **overrides), resolve_config("test_mibf", **overrides)
    same = [name for name in model.config if not name.endswith("_args")]
    assert {name: model.config[name] for name in same} == {name: config[name] for name in same}
    assert config["text_args"] == {"vocab_size": 50} and model.text_tower.config["vocab_size"] == 50


def test_a_model_is_built_once(make_config: MakeConfig, monkeypatch: Any) -> None:
    built: list[str] = []

    def note(name: str, **keywords: Any) -> Any:
        built.append(name)
        return create_model(name, **keywords)

    monkeypatch.setattr("mmfusion.training.build.create_model", note)
    monkeypatch.setattr("mmfusion.training.run._train_or_resume", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train(make_config())
    assert built == ["test_mibf"]


def test_heads_and_encoders_are_what_loss_and_settings_ask_for(make_config: MakeConfig) -> None:
    config = make_config(freeze_encoders=True, epochs=1, loss="ce")
    last = load_model(train(config).last)
    assert last.config["aux_heads"] is False
    set_seed(config.seed)
    cases = read_training_cases(config, images_checked=True)
    made: dict[str, Any] = {"table": None, "weights": {"text": None}, "provenance": {}, "card": {}}
    start = build_predictor(config, cases, aux_heads=False, **made).model
    moved = [name for (name, a), b in zip(last.state_dict().items(), start.state_dict().values(), strict=True)
             if not torch.equal(a, b)]  # fmt: skip
    assert moved and not [name for name in moved if "_tower.backbone." in name]


def test_a_saved_model_is_trained_further(make_config: MakeConfig, trained: RunConfig) -> None:
    first, name = Path(trained.output) / "best", f"local-dir:{trained.output}"
    second = train(make_config("second", epochs=1, lr=1e-12, weight_decay=0.0, model={"name": name}))
    a, b = (load_file(folder / "model.safetensors") for folder in (first, second.last))
    torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
    tokenizers = [Processor.from_pretrained(folder).tokenizer.get_vocab() for folder in (first, second.last)]
    assert tokenizers[0] == tokenizers[1]


def test_what_a_run_began_with_is_told(
    make_config: MakeConfig, trained: RunConfig, toy: Path, tmp_path: Path, capsys: Any
) -> None:
    data = tmp_path / "two"
    shutil.copytree(toy, data)
    table = (data / "cases.csv").read_text().replace(",c,", ",b,")
    (data / "cases.csv").write_text(table)
    config = make_config("second", epochs=1, model={"name": f"local-dir:{trained.output}"})
    second = train(replace(config, data=str(data)))
    assert (
        "has the classes a, b, c; the data have a, b: using a new head with random weights" in capsys.readouterr().out
    )
    card = json.loads((second.best / "config.json").read_text())["card"]
    assert card["license"] == "cc-by-nc-4.0" and card["started_from"]["dataset"] == "Toy"
    text = (second.best / "README.md").read_text()
    assert "- Started from: `local-dir:first` (Toy, cc-by-nc-4.0)" in text and trained.output not in text


def test_precision_is_bf16_only_where_the_machine_computes_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    for capabilities, expected in (
        ({"avx2": True, "amx_bf16": False, "avx512_bf16": False}, "fp32"),
        ({"avx512_bf16": True}, "bf16"),
        ({"amx_bf16": True}, "bf16"),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=capabilities: found)
        assert resolve_precision("auto") == expected
    assert resolve_precision("fp32") == "fp32"
    with pytest.raises(ValueError, match="fp16 needs a GPU"):
        resolve_precision("fp16")


def test_bf16_trains(make_config: MakeConfig, trained: RunConfig) -> None:
    half = train(make_config("half", precision="bf16", epochs=1, model="plain"))
    assert {tensor.dtype for tensor in load_file(half.last / "model.safetensors").values()} == {torch.float32}
    full = records(trained.output)[0]["train_loss"]
    assert half.history[0]["train_loss"] != full
    assert half.history[0]["train_loss"] == pytest.approx(full, rel=0.05)


def test_all_validation_rows_are_measured(make_config: MakeConfig) -> None:
    """With batches of 23 the last of 24 training rows is left out, but all 7 validation rows are evaluated."""
    result = train(make_config(batch_size=23, epochs=1, metric="accuracy"))
    assert result.val["accuracy"] * 7 == pytest.approx(round(result.val["accuracy"] * 7))


class _ImageAlone(torch.nn.Module):
    """Concatenation that ignores the text."""

    def __init__(self, image_dim: int, text_dim: int, dim: int) -> None:
        super().__init__()
        self.image, self.text = torch.nn.Linear(image_dim, dim), torch.nn.Linear(text_dim, dim)

    def forward(self, image: Features, text: Features) -> Fused:
        return Fused(pooled=self.image(image.pooled) + 0 * self.text(text.pooled))


def test_a_modality_that_is_not_read_is_told_in_one_line(
    make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register("fusion", "image_alone")(_ImageAlone)
    try:
        result = train(make_config("alone", {"name": "test_concat", "fusion": "image_alone"}, epochs=3))
    finally:
        registry.unregister("fusion", "image_alone")
    found = json.loads((result.best / "metrics.json").read_text())["moved_by"]
    assert found["text"] == 0 and found["image"] > 0
    history = records(result.folder)
    assert [record["moved_by_text"] for record in history] == [0, 0, 0]
    assert history[result.best_epoch - 1]["moved_by_image"] == found["image"]
    (line,) = [r.getMessage() for r in caplog.records if "model ignores" in r.getMessage()]
    assert line.startswith("The model ignores the text") and "0.0000" in line and "docs/parts/mibf.md" in line


def test_modalities_that_are_read_or_nothing_learned_give_no_line() -> None:
    assert warnings_of({"moved_by_image": 0.2, "moved_by_text": 0.01, "nll": 0.0}) == []
    assert warnings_of({"moved_by_image": 0.002, "moved_by_text": 0.001}) == []
    assert warnings_of({"epoch": 1}) == []
    (line,) = warnings_of({"moved_by_image": 0.004, "moved_by_text": 0.5})
    assert "ignores the image" in line and "by 0.0040 (the text by 0.5000)" in line


def test_looking_at_the_modalities_changes_nothing(make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(make_config("first"))
    monkeypatch.setattr("mmfusion.training.run.moved_by", lambda *_, **__: {})
    plain = train(make_config("plain"))
    looked = [{k: v for k, v in record.items() if not k.startswith("moved_by")} for record in records(first.folder)]
    assert looked == records(plain.folder) and len(looked[0]) < len(records(first.folder)[0])
    a, b = (load_file(run.last / "model.safetensors") for run in (first, plain))
    assert all(torch.equal(a[name], b[name]) for name in a)
