"""Draw `docs/explanation.png`: train a model on the demo data and explain one test case.

`python docs/draw_explanation.py`, a few minutes on one CPU core. The cases are synthetic.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pandas as pd

import mmfusion
from mmfusion.data import make_demo
from mmfusion.explanation.overlay import draw
from mmfusion.files import write_figure

PICTURE = Path(__file__).with_name("explanation.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        data = make_demo(Path(folder) / "demo", n=600)
        run = mmfusion.train(
            data,
            output=f"{folder}/run",
            dataset={"group_column": "patient_id", "table_columns": ["age", "sex", "localization"]},
            model={"name": "mibf_v2_lite0", "modality_dropout": 0.2},
            processor={"image_size": 96},
            train={"epochs": 8, "batch_size": 32, "lr": 1e-3, "encoder_lr_scale": 0.3},
        )
        cases = pd.read_csv(data / "metadata.csv")
        case = cases[(cases["split"] == "test") & (cases["label"] == "dune")].dropna().iloc[0]
        row = {**case.drop("label"), "image": str(data / "images" / case["image"])}
        explanation = run.predictor.explain(row, level=-2)
    write_figure(PICTURE, draw(explanation, title=f"predicted: {explanation.label} (label: {case['label']})"), dpi=100)
    print(f"wrote {PICTURE.name}, {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
