"""``mmfusion demo``: synthetic data that need both modalities, three models, one table."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from jinja2 import Template

from mmfusion.data import DatasetConfig, make_demo
from mmfusion.experiments.config import DemoConfig
from mmfusion.files import sole_writer, write_text
from mmfusion.inference.predictor import Predictor
from mmfusion.markdown import aligned_table
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig, TrainResult, train

ROWS = 700
TEXT = "{age}-year-old {sex}, lesion on the {localization}."

#: Label in the table -> architecture. All use the same small image backbone.
MODELS = {"image": "image_lite0", "text": "text_bert_tiny", "fusion": "mibf_v2_lite0"}
BACKBONE = "test_resnet"

COLUMNS = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc")
REPORT = Path(__file__).with_name("demo.md.jinja")
_MARKER = ".mmfusion-demo"


@dataclass
class Demo:
    """Result of the demo: ``folder`` with the data, the runs and ``report``, and the ``seconds`` it took."""

    folder: Path
    report: Path
    seconds: float

    def summary(self) -> str:
        """Location of the results."""
        return f"\ndone in {self.seconds:.0f} s; the report is {self.report}, the models are in {self.folder}"


@sole_writer
def demo(config: DemoConfig) -> Demo:
    """Generate data, train an image-only, a text-only and a fusion model, compare, reload and predict.

    Raises:
        FileExistsError: The folder has contents other than an earlier demo.
    """
    began, threads, folder = time.monotonic(), torch.get_num_threads(), _fresh(Path(config.output))
    print(f"[1/4] generating {ROWS} synthetic cases in {folder / 'data'}")
    data = make_demo(folder / "data", n=ROWS, seed=config.seed)
    results: dict[str, TrainResult] = {}
    # models this small gain little from a second thread, and lose ten times as much on shared cores
    torch.set_num_threads(1)
    try:
        for kind, name in MODELS.items():
            print(f"\n[2/4] training {kind}: {name}")
            results[kind] = train(_config(kind, data, folder / kind, config.seed))
            print(results[kind].summary())
    finally:
        torch.set_num_threads(threads)
    figures = _figures(results)
    print(f"\n[3/4] on the test rows:\n\n{figures}\n\n[4/4] loading the saved fusion model and predicting:\n")
    predictions = _predictions(results["fusion"].predictor, data)
    print(predictions)
    template = Template(REPORT.read_text(encoding="utf-8"), trim_blocks=True, keep_trailing_newline=True)
    text = template.render(rows=ROWS, seed=config.seed, figures=figures, predictions=predictions, models=MODELS)
    report = folder / "report.md"
    write_text(report, text)
    return Demo(folder, report, time.monotonic() - began)


def _fresh(folder: Path) -> Path:
    """Create an empty folder marked as a demo's."""
    if folder.exists() and any(folder.iterdir()):
        if not (folder / _MARKER).exists():
            raise FileExistsError(f"{folder} is not empty and not from an earlier demo; choose another --output.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    return folder


def _config(kind: str, data: Path, output: Path, seed: int) -> RunConfig:
    """A run; only the model differs between runs."""
    return RunConfig(
        data=str(data),
        output=str(output),
        seed=seed,
        dataset=DatasetConfig(text_template=TEXT, group_column="patient_id"),
        model=ModelConfig(name=MODELS[kind], image_encoder=None if kind == "text" else BACKBONE),
        processor=ProcessorConfig(image_size=64, max_length=64),
        train=TrainConfig(epochs=8, batch_size=32, lr=1e-3, encoder_lr_scale=1.0),
    )


def _figures(results: dict[str, TrainResult]) -> str:
    rows: list[list[str]] = []
    for kind, result in results.items():
        assert result.test is not None
        parameters = sum(p.numel() for p in result.predictor.network().parameters())
        seconds = sum(record["seconds"] for record in result.history)
        rows.append([kind, f"{parameters:,}", *(f"{result.test[name]:.3f}" for name in COLUMNS), f"{seconds:.0f} s"])
    return aligned_table(["model", "parameters", *(name.replace("_", " ") for name in COLUMNS), "training"], rows)


def _predictions(predictor: Predictor, data: Path) -> str:
    """Three test cases, and one of them again without its text and without its image."""
    table = pd.read_csv(data / "metadata.csv", dtype=str, keep_default_na=False)
    table = table[(table["split"] == "test") & (table["image"] != "") & (table["text"] != "")][:3]
    records = table.drop(columns="patient_id").to_dict("records")
    rows = [{**row, "image": data / "images" / row["image"]} for row in records]
    rows += [{"image": rows[0]["image"]}, {key: value for key, value in rows[0].items() if key != "image"}]
    names, truth = table["image"].tolist(), table["label"].tolist()
    shown = zip(
        [*names, f"{names[0]} without text", "its text alone"],
        [*truth, truth[0], truth[0]],
        predictor.predict(rows),
        strict=True,
    )
    cells = [[name, true, result["label"], f"{result['probability']:.3f}"] for name, true, result in shown]
    return aligned_table(["case", "truth", "prediction", "probability"], cells)
