"""An exported folder compared with its saved model."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mutants import check_mutants
from PIL import Image

import mmfusion
from mmfusion.artifacts.integrity import write_files
from mmfusion.cli import main as cli
from mmfusion.data import Processor, fit_wordpiece, read_cases
from mmfusion.evaluation.measure import measure
from mmfusion.explanation import explain_path
from mmfusion.exporting import artifact
from mmfusion.inference import OnnxModel, predict_path

onnxruntime = pytest.importorskip("onnxruntime")

LABELS = ["a", "b", "c"]
TEMPERATURE = 2.5
PRIOR = {"prior_strength": 0.5, "log_prior": [-0.2, -1.9, -3.1]}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with an untrained, calibrated model of image and text, and metrics."""
    torch.manual_seed(0)
    run = tmp_path_factory.mktemp("run")
    tokenizer = fit_wordpiece(["a red green blue spot, patient of 30 years"], 128)
    processor = Processor(LABELS, image_size=32, tokenizer=tokenizer, max_length=24)
    model = mmfusion.create_model("test_mibf", num_classes=3, text_args={"vocab_size": len(tokenizer)})
    calibration = {"temperature": TEMPERATURE, "fitted_on": "val", "n": 60, **PRIOR}
    predictor = mmfusion.Predictor(model, processor, calibration, {"dataset": {}, "seed": 0})
    predictor.save_pretrained(run / "best", {"accuracy": 0.5})
    return run


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "onnx"
    done = mmfusion.export_model(f"local-dir:{run}", folder)
    assert done.path == folder and 0 <= done.difference <= 1e-4
    return folder


@pytest.fixture
def pair(run: Path, exported: Path) -> tuple[mmfusion.Predictor, mmfusion.Predictor]:
    load = mmfusion.Predictor.from_pretrained
    return load(f"local-dir:{run}", device="cpu"), load(f"local-dir:{exported}", device="cpu")


def values(results: list[dict]) -> np.ndarray:
    return np.array([list(result["probabilities"].values()) for result in results])


def test_the_folder_is_whole_and_holds_no_torch_weights(run: Path, exported: Path) -> None:
    names = {file.name for file in exported.iterdir()}
    assert {"model.onnx", "config.json", "tokenizer.json", "metrics.json", "README.md"} <= names
    assert not any(name.endswith((".safetensors", ".partial")) for name in names)
    config, before = (json.loads((folder / "config.json").read_text()) for folder in (exported, run / "best"))
    assert {key for key in config if config[key] != before.get(key)} == {"export"}
    assert before.keys() - config.keys() == {"weights_sha256"}
    entry = config["export"]
    assert entry["inputs"] == ["pixel_values", "image_present", "input_ids", "attention_mask", "text_present"]
    assert entry["outputs"] == ["logits", "probabilities"] and entry["image_layout"] == "image"


def test_rows_of_every_kind(pair, toy: Path) -> None:
    eager, onnx = pair
    assert isinstance(onnx.model, OnnxModel) and onnx.labels == LABELS
    rows = [{"id": i, "image": toy / f"case{i}.png", "text": "a red spot " * (i + 1)} for i in range(5)]
    rows += [{"image": toy / "case5.png"}, {"text": "green"}, {"image": toy / "none.png", "id": "x"}, {}]
    for options in ({}, {"tta": True}, {"batch_size": 2}):
        expected, found = eager.predict(rows, **options), onnx.predict(rows, **options)
        assert found[7:] == expected[7:] and "error" in found[7]
        np.testing.assert_allclose(values(found[:7]), values(expected[:7]), atol=1e-4)
        assert [result["label"] for result in found[:7]] == [result["label"] for result in expected[:7]]


def test_calibration_can_be_left_out(run: Path, exported: Path, toy: Path) -> None:
    rows = [{"image": toy / "case1.png", "text": "a blue spot"}]
    plain, expected, calibrated = (
        values(mmfusion.Predictor.from_pretrained(f"local-dir:{folder}", calibrated=c).predict(rows))
        for folder, c in ((exported, False), (run, False), (exported, True))
    )
    np.testing.assert_allclose(plain, expected, atol=1e-4)
    powers = (plain * np.exp(0.5 * np.array(PRIOR["log_prior"]))) ** (1 / TEMPERATURE)
    np.testing.assert_allclose(calibrated, powers / powers.sum(), atol=1e-5)


def test_tables_and_figures(pair, toy: Path, tmp_path: Path) -> None:
    eager, onnx = pair
    toy = shutil.copytree(toy, tmp_path / "toy")
    (toy / "broken.png").write_bytes(b"no picture")
    table = tmp_path / "cases.csv"
    table.write_text("image,text,label\ncase0.png,a red spot,a\nbroken.png,,b\n,green,b\ncase4.png,,c\n")
    read = mmfusion.data.DatasetConfig(image_root=str(toy))
    found = []
    for name, predictor in (("eager", eager), ("onnx", onnx)):
        done = predict_path(predictor, table, tmp_path / f"{name}.csv", dataset=read)
        assert (done.rows, done.unreadable) == (4, 1)
        with (tmp_path / f"{name}.csv").open(newline="") as file:
            found.append(list(csv.DictReader(file)))
    for a, b in zip(*found, strict=True):
        assert (a["id"], a["label"], a["error"]) == (b["id"], b["label"], b["error"])
        for column in ("p_a", "p_b", "p_c"):
            assert a[column] == b[column] == "" or float(a[column]) == pytest.approx(float(b[column]), abs=1e-4)
    assert "broken.png" in found[1][1]["error"]
    cases = read_cases(toy, processor_labels=LABELS).select("train")
    figures = [measure(p, cases, missing_modality=True).to_dict() for p in pair]
    assert figures[0]["nll"] == pytest.approx(figures[1]["nll"], abs=1e-4)
    assert figures[0]["confusion_matrix"] == figures[1]["confusion_matrix"]
    assert figures[1]["calibration"]["temperature"] == TEMPERATURE
    shown = [[row["nll"]["value"] for row in each["missing_modality"]] for each in figures]
    assert len(shown[1]) == 4 and shown[0] == pytest.approx(shown[1], abs=1e-4)


def test_what_it_cannot_do_is_one_line(exported: Path, pair) -> None:
    _, onnx = pair
    for explain in (lambda: onnx.explain({"text": "red"}), lambda: explain_path(onnx, "data", "out")):
        with pytest.raises(ValueError, match="An exported model has no gradients to explain with"):
            explain()
    with pytest.raises(ValueError, match=r"contains an exported model, whose weights are fixed"):
        mmfusion.create_model(f"local-dir:{exported}")
    with pytest.raises(ValueError, match="computes in float32"):
        mmfusion.Predictor.from_pretrained(f"local-dir:{exported}", dtype=torch.bfloat16)
    with pytest.raises(ValueError, match=r"pixel_values is missing.*image_present false"):
        onnx.model(input_ids=torch.ones(1, 3, dtype=torch.long))


def test_inputs_that_are_not_given(pair) -> None:
    eager, onnx = pair
    inputs = {"pixel_values": torch.randn(2, 3, 32, 32), "input_ids": torch.randint(5, 40, (2, 6))}
    with torch.inference_mode():
        torch.testing.assert_close(onnx.model(**inputs).logits, eager.model(**inputs).logits, rtol=0, atol=1e-4)


def test_damage(exported: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    program = folder / "model.onnx"
    content = bytearray(program.read_bytes())
    content[len(content) // 2] ^= 1
    program.write_bytes(content)
    with pytest.raises(ValueError, match=r"model.onnx does not match config.json"):
        mmfusion.Predictor.from_pretrained(f"local-dir:{folder}")
    program.write_bytes(b"nothing")
    config = json.loads((folder / "config.json").read_text())
    config["export"]["sha256"] = artifact.sha256(program)
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json was changed since the model was saved"):
        mmfusion.Predictor.from_pretrained(f"local-dir:{folder}")
    write_files(folder, "model.onnx")
    with pytest.raises(ValueError, match="damaged or incompatible with this onnxruntime") as raised:
        mmfusion.Predictor.from_pretrained(f"local-dir:{folder}")
    assert "\n" not in str(raised.value)
    program.unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model.onnx"):
        mmfusion.Predictor.from_pretrained(f"local-dir:{folder}")
    config["export"]["format"] = "torch-export"
    (folder / "config.json").write_text(json.dumps(config))
    write_files(folder)
    with pytest.raises(ValueError, match=r"program for torch.export.load"):
        mmfusion.Predictor.from_pretrained(f"local-dir:{folder}")


def test_int8_tells_what_it_costs(run: Path, toy: Path, tmp_path: Path) -> None:
    name = f"local-dir:{run}"
    for wrong in ({"quantize": "int8"}, {"quantize": "int8", "data": str(toy), "format": "torch-export"}):
        with pytest.raises(ValueError, match="give --data with labeled rows"):
            mmfusion.export_model(name, tmp_path / "out", **wrong)
    with pytest.raises(ValueError, match="quantize='int4' is not one of 'int8'"):
        mmfusion.export_model(name, tmp_path / "out", quantize="int4", data=str(toy))
    done = mmfusion.export_model(name, tmp_path / "out", quantize="int8", data=str(toy))
    told = json.loads((tmp_path / "out" / "config.json").read_text())["export"]["quantized"]
    assert done.quantized is not None and told == done.quantized.entry() and str(done.quantized) in done.summary()

    cases = read_cases(toy, processor_labels=LABELS).select("test")
    folders = (name, f"local-dir:{tmp_path / 'out'}")
    p, q = (mmfusion.Predictor.from_pretrained(each, device="cpu").predict_cases(cases) for each in folders)
    right = [each.probabilities.argmax(axis=1) == each.labels for each in (p, q)]
    assert (told["rows"], told["split"], told["type"]) == (6, "test", "int8")
    assert told["accuracy"] == pytest.approx([each.mean() for each in right])
    of_classes = [[each[p.labels == label].mean() for label in range(3)] for each in right]
    assert told["balanced_accuracy"] == pytest.approx([np.mean(each) for each in of_classes])
    assert 1e-5 < told["difference"] == pytest.approx(np.abs(p.probabilities - q.probabilities).max(), abs=1e-6)
    assert told["megabytes"][1] < 0.9 * told["megabytes"][0] and told["difference"] < 0.1


def test_where_it_is_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(model, path: Path, **options) -> float:
        assert options["image_size"] == 32 and options["max_length"] == 24
        path.write_bytes(b"program")
        if options["tolerance"] < 1e-9:
            raise ValueError("differs")
        return 5e-6

    monkeypatch.setattr(artifact, "write_program", write)
    name = f"local-dir:{run}"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(FileExistsError, match="not an earlier export"):
        mmfusion.export_model(name, tmp_path / "mine")
    with pytest.raises(FileExistsError, match="not an earlier export"):
        mmfusion.export_model(name, run / "best")
    with pytest.raises(ValueError, match=r"files end in .pt2"):
        mmfusion.export_model(name, tmp_path / "m.onnx", format="torch-export")
    with pytest.raises(ValueError, match="'onnx', 'torch-export'"):
        mmfusion.export_model(name, tmp_path / "m", format="tflite")
    assert mmfusion.export_model(name, tmp_path / "new" / "m.onnx").path.read_bytes() == b"program"
    out = tmp_path / "out"
    mmfusion.export_model(name, out, format="torch-export")
    assert (out / "model.pt2").exists()
    mmfusion.export_model(name, out)
    assert (out / "model.onnx").exists() and not (out / "model.pt2").exists()
    with pytest.raises(ValueError, match="differs"):
        mmfusion.export_model(name, out, format="torch-export", tolerance=1e-10)
    assert (out / "model.onnx").exists() and not (out / "model.pt2").exists()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["mine", "new", "out"]


def test_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(model, path: Path, **options) -> float:
        path.write_bytes(b"program")
        return 5e-6

    monkeypatch.setattr(artifact, "write_program", write)
    out = tmp_path / "out"
    assert cli.main(["export", "--model", f"local-dir:{run}", "--output", str(out)]) == 0
    said = capsys.readouterr().out
    assert "5.0e-06" in said and f"--model local-dir:{out}" in said
    (out / "config.json").unlink()
    assert cli.main(["export", "--model", f"local-dir:{run}", "--output", str(out)]) == 2
    assert "not an earlier export" in capsys.readouterr().err


def test_an_image_of_another_kind(pair) -> None:
    eager, onnx = pair
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))
    np.testing.assert_allclose(
        values(onnx.predict([{"image": picture}])), values(eager.predict([{"image": picture}])), atol=1e-4
    )


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("attacked", [False, True], ids=["damaged", "attacked"])
def test_mutants(exported: Path, tmp_path: Path, pytestconfig: pytest.Config, attacked: bool) -> None:
    """Like the mutants of a saved model in ``tests/artifacts/test_mutants.py``."""
    files = {path.name: path.read_bytes() for path in exported.iterdir()}
    rows = [{"image": Image.new("RGB", (20, 20), (90, 40, 30)), "text": "a red spot"}, {"text": "blue"}]
    check_mutants(files, tmp_path, rows, pytestconfig.getoption("mutants") or 40, attacked)


@pytest.mark.parametrize(
    ("section", "entry", "value", "told"),
    [
        ("export", "inputs", [["pixel_values"]], r"export\.inputs has values that are not texts"),
        ("export", "inputs", {}, r"export\.inputs is \{\}, not a list"),
        ("export", "image_layout", 3, r"export\.image_layout is 3, not a text"),
        ("model", "image_tower", None, r"has no model\.image_tower, and the program takes one"),
    ],
)
def test_an_entry_that_no_export_has(
    exported: Path, tmp_path: Path, section: str, entry: str, value: object, told: str
) -> None:
    shutil.copytree(exported, tmp_path / "m")
    (tmp_path / "m/files.json").unlink()
    config = json.loads((tmp_path / "m/config.json").read_text())
    config[section][entry] = value
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=told):
        mmfusion.Predictor.from_pretrained(tmp_path / "m")
