"""``engine="onnx"``: the predictions of a saved model, computed by ONNX Runtime."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch

import mmfusion
from mmfusion.cli import main as cli
from mmfusion.data import DatasetConfig, Processor, fit_wordpiece, read_cases
from mmfusion.data.table_columns import TableColumns
from mmfusion.evaluation.familiarity import fit_familiarity
from mmfusion.exporting import cached
from mmfusion.files import cache_folder
from mmfusion.inference import OnnxModel

pytest.importorskip("onnxruntime")

CALIBRATION = {"temperature": 1.5, "fitted_on": "val", "n": 60}
KINDS = {"text": {}, "columns": {"text_encoder": None, "table_encoder": "table_mlp"}}


@pytest.fixture(params=KINDS)
def saved(request: pytest.FixtureRequest, toy: Path, tmp_path: Path) -> tuple[str, Path]:
    """A saved model of image with text or columns, with familiarity; and rows with missing inputs."""
    torch.manual_seed(0)
    root = tmp_path / "data"
    root.mkdir()
    lines = ["image,text,age,label,split"]
    words = ("green", "", "red")
    for i, split in enumerate(["train"] * 20 + ["val"] * 12):
        age = "" if i == 3 else str(30 + i)
        text = "" if i % 4 == 1 else f"a red {words[i % 3]} spot " * (1 + i % 5)
        lines.append(f"{'' if i == 4 else f'case{i}.png'},{text},{age},a,{split}")
    (root / "cases.csv").write_text("\n".join(lines) + "\nnone.png,,,a,val\n,green,,b,val\n")
    cases = read_cases(root / "cases.csv", DatasetConfig(image_root=str(toy))).resolve("skip")
    known: dict = {"tokenizer": fit_wordpiece(["a red green spot"], 64)}
    if request.param == "columns":
        known = {"table": TableColumns.fit(cases.select("train").frame, numeric=["age"])}
    processor = Processor(["a", "b", "c"], image_size=32, max_length=16, **known)
    model = mmfusion.create_model("test_concat", num_classes=3, processor=processor, **KINDS[request.param])
    predictor = mmfusion.Predictor(model, processor, CALIBRATION, {"dataset": {}}, tta=True)
    predictor.familiarity = fit_familiarity(predictor, cases.select("train"), cases.select("val"), min_patients=2)
    predictor.save_pretrained(tmp_path / "model")
    return f"local-dir:{tmp_path / 'model'}", root / "cases.csv"


def test_the_command_writes_what_torch_writes(
    saved: tuple[str, Path],
    toy: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    name, data = saved
    tables = []
    for engine in ([], ["--engine", "onnx"]):
        out = tmp_path / f"{len(tables)}.csv"
        asked = ["predict", "--model", name, "--data", str(data), "--dataset.image_root", str(toy), *engine]
        assert cli.main([*asked, "--output", str(out)]) == 0
        with out.open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    assert "exporting model to ONNX (once" in capsys.readouterr().out
    compared = 0
    for a, b in zip(*tables, strict=True):
        for column, cell in a.items():
            if column.startswith("p") and cell:
                assert float(b[column]) == pytest.approx(float(cell), abs=1e-4)
                compared += 1
            elif column == "familiarity" and cell:
                assert float(b[column]) == pytest.approx(float(cell), rel=0.02)
            else:
                assert b[column] == cell
    assert compared > 100 and {row["inputs"] for row in tables[0]} >= {"", "image"}
    assert "familiarity" in tables[0][0]

    # the second time, the program exists
    monkeypatch.setattr(cached, "export_model", None)
    onnx = mmfusion.Predictor.from_pretrained(name, engine="onnx")
    assert isinstance(onnx.model, OnnxModel) and onnx.tta and onnx.calibration == CALIBRATION
    assert not isinstance(mmfusion.Predictor.from_pretrained(name).model, OnnxModel)

    made = max(cache_folder("onnx").iterdir(), key=lambda folder: folder.stat().st_mtime)
    with pytest.raises(ValueError, match="without the weights needed by engine='torch'"):
        mmfusion.Predictor.from_pretrained(made, engine="torch")
    with pytest.raises(ValueError, match="engine='jax' is not one of"):
        mmfusion.Predictor.from_pretrained(name, engine="jax")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert cli.main(["predict", "--model", name, "--data", str(data), "--engine", "onnx"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and 'pip install "mmfusion[onnx]"' in said[0]
