"""``mmfusion demo``: invented data that need both modalities, three models, one table."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmfusion.cli.config import DemoConfig
from mmfusion.data import DatasetConfig, make_demo
from mmfusion.inference.predictor import Predictor
from mmfusion.markdown import aligned_table
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig, TrainResult, train

ROWS = 1000
TEMPLATE = "{age}-year-old {sex}, lesion on the {localization}."

#: what is compared -> architecture. One image backbone for both, small enough for any laptop.
MODELS = {"image": "image_lite0", "text": "text_bert_tiny", "fusion": "mibf_lite0"}
BACKBONE = "test_resnet"

COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc")
_MARKER = ".mmfusion-demo"


@dataclass
class Demo:
    """What a demo made.

    Attributes:
        folder: Folder of the data, the runs and the report.
        report: The report, ``report.md`` in the folder.
        seconds: Wall time of all of it.
    """

    folder: Path
    report: Path
    seconds: float

    def summary(self) -> str:
        """Where the results are."""
        return f"\ndone in {self.seconds:.0f} s; the report is {self.report}, the models are in {self.folder}"


def demo(config: DemoConfig) -> Demo:
    """Make data, train an image-only, a text-only and a fusion model, compare, reload and predict.

    Raises:
        FileExistsError: The folder holds something else than an earlier demo.
    """
    began = time.monotonic()
    folder = _fresh(Path(config.output))
    print(f"[1/4] making {ROWS} invented cases in {folder / 'data'}")
    data = make_demo(folder / "data", n=ROWS, seed=config.seed)
    results: dict[str, TrainResult] = {}
    with _one_thread():
        for kind, name in MODELS.items():
            print(f"\n[2/4] training {kind}: {name}")
            results[kind] = train(_config(kind, data, folder / kind, config.seed))
            print(results[kind].summary())
    print("\n[3/4] on the test rows:\n")
    table = _table(results)
    print(table)
    print("\n[4/4] loading the saved fusion model and predicting:\n")
    predictions = _predict(results["fusion"].predictor, data)
    print(predictions)
    report = folder / "report.md"
    report.write_text(_report(table, predictions, config.seed), encoding="utf-8")
    return Demo(folder, report, time.monotonic() - began)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Models this small gain little from a second thread, and lose ten times that where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fresh(folder: Path) -> Path:
    """An empty folder, marked as a demo's."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARKER).exists():
            raise FileExistsError(f"{folder} is not empty and no earlier demo; choose another --output.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    return folder


def _config(kind: str, data: Path, output: Path, seed: int) -> RunConfig:
    """One run; nothing but the model differs between them."""
    return RunConfig(
        data=str(data),
        output=str(output),
        seed=seed,
        dataset=DatasetConfig(text_template=TEMPLATE, group_column="patient_id"),
        model=ModelConfig(name=MODELS[kind], image_encoder=None if kind == "text" else BACKBONE),
        processor=ProcessorConfig(image_size=64, max_length=64),
        train=TrainConfig(epochs=8, batch_size=32, lr=1e-3, encoder_lr_scale=1.0),
    )


def _table(results: dict[str, TrainResult]) -> str:
    header = ["model", "parameters", *(name.replace("_", " ") for name in COLUMNS), "training"]
    rows: list[list[str]] = []
    for kind, result in results.items():
        assert result.test is not None
        parameters = sum(p.numel() for p in result.predictor.network().parameters())
        seconds = sum(record["seconds"] for record in result.history)
        rows.append([kind, f"{parameters:,}", *(f"{result.test[name]:.3f}" for name in COLUMNS), f"{seconds:.0f} s"])
    return aligned_table(header, rows)


def _predict(predictor: Predictor, data: Path) -> str:
    """Three test cases, and one of them again without its text and without its image."""
    with (data / "metadata.csv").open(encoding="utf-8", newline="") as file:
        cases = [row for row in csv.DictReader(file) if row["split"] == "test" and row["image"] and row["text"]][:3]
    rows: list[dict[str, Any]] = [{**case, "image": data / "images" / case["image"]} for case in cases]
    shown = [(case["image"], case["label"]) for case in cases]
    first = rows[0]
    rows += [{"image": first["image"]}, {key: value for key, value in first.items() if key != "image"}]
    shown += [(f"{cases[0]['image']} without text", cases[0]["label"]), ("its text alone", cases[0]["label"])]
    table: list[list[str]] = []
    for (case, truth), result in zip(shown, predictor.predict(rows), strict=True):
        table.append([case, truth, result["label"], f"{result['probability']:.3f}"])
    return aligned_table(["case", "truth", "prediction", "probability"], table)


def _report(table: str, predictions: str, seed: int) -> str:
    plots = "\n\n".join(
        f"### {kind}\n\n![confusion matrix]({kind}/confusion_matrix.png)\n\n![ROC curves]({kind}/roc.png)"
        for kind in MODELS
    )
    return f"""# Demo report

{ROWS} invented cases (seed {seed}): pictures made by code, and patient text. The classes mean nothing in medicine.
Neither the picture nor the text tells all five apart; both together do, except where one of them is missing.

## Three models, all else equal

On the test rows:

{table}

## The saved fusion model, loaded again

{predictions}

## Plots

{plots}
"""
