"""Example programs, on the toy data."""

from __future__ import annotations

import json
import runpy
import shutil
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import mmfusion
from mmfusion.data import DatasetConfig
from mmfusion.training import CardConfig, ModelConfig, ProcessorConfig, RunConfig, TrainConfig, train

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.mark.slow
def test_ship(toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = shutil.copytree(toy, tmp_path / "data")
    table = pd.read_csv(data / "cases.csv")
    table.assign(patient=table.index // 2 * 2).to_csv(data / "cases.csv", index=False)
    run = train(
        RunConfig(
            data=str(data),
            dataset=DatasetConfig(group_column="patient"),
            output=str(tmp_path / "run"),
            model=ModelConfig(name="test_concat"),
            processor=ProcessorConfig(image_size=32, augment="none"),
            train=TrainConfig(epochs=1, batch_size=8, precision="fp32", sensitivity=0.9),
            card=CardConfig(dataset="Toy", license="mit"),
        )
    )
    small = tmp_path / "small"
    arguments = ["ship.py", "--model", f"local-dir:{run.folder}", "--data", str(data), "--output", str(small)]
    monkeypatch.setattr(sys, "argv", arguments)
    runpy.run_path(str(EXAMPLES / "ship.py"), run_name="__main__")

    assert (small / "model.safetensors").stat().st_size < 0.6 * (run.best / "model.safetensors").stat().st_size
    weights = load_file(small / "model.safetensors")
    learned = {name for name, _ in mmfusion.create_model(f"local-dir:{small}").named_parameters()}
    assert {weights[name].dtype for name in learned} == {torch.float16}  # running statistics keep their precision
    assert {x.dtype for name, x in weights.items() if name not in learned} <= {torch.float32, torch.int64}
    metrics, config = (json.loads((small / f"{name}.json").read_text()) for name in ("metrics", "config"))
    full = json.loads((run.best / "config.json").read_text())
    assert metrics["bootstrap"]["groups"] == 4  # of 6 rows, in pairs that the split cuts
    assert metrics["split"] == "test" and metrics["n"] == 6 and metrics["speed"]["rows_per_second"] > 0
    assert metrics["thresholds"]["wanted"] == 0.9 and metrics["thresholds"]["fitted_on"] == 7
    assert config["card"] == full["card"] and config["training"] == full["training"]
    assert config["card"]["dataset"] == "Toy" and "- License of the weights: mit" in (small / "README.md").read_text()
    row = {"image": str(toy / "case36.png"), "text": "a red spot"}
    one, other = (
        mmfusion.Predictor.from_pretrained(f"local-dir:{folder}").predict([row])[0] for folder in (run.folder, small)
    )
    assert one["probability"] == pytest.approx(other["probability"], abs=2e-3)
    assert one["probability"] != other["probability"]


@pytest.mark.slow
def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cells run in order, on fewer cases and for one epoch."""
    monkeypatch.chdir(tmp_path)
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    assert all(not cell.get("outputs") or cell["outputs"][0]["output_type"] != "error" for cell in cells)
    names: dict[str, object] = {}
    for number, source in enumerate("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"):
        smaller = source.replace("n=600", "n=80").replace('"epochs": 8', '"epochs": 1').replace(": 64", ": 32")
        exec(compile(smaller, f"quickstart.ipynb, code cell {number}", "exec"), names)
    assert names["row"]["text"] and set(names["explanation"].contributions.values) >= {"image+text", "image", "text"}
    assert type(names["model"].fusion).__name__ == "Gated"
