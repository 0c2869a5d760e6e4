"""Predict a Parquet table with Ray Data: workers that each hold the model, on one machine or on a cluster.

    pip install "mmfusion[ray]"
    python examples/predict_with_ray.py --model local-dir:runs/first --data cases.parquet \
        --images photos --output predictions --workers 8

The cells of the column `image` are paths below `--images`, or embedded pictures. The result is a folder of Parquet
files, in the order of the rows. A worker that dies is started again, and its rows are predicted again.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import ray


class Diagnose:
    """The model, once in each worker; a batch of rows in, their predictions out."""

    def __init__(self, model: str, images: str, engine: str | None = None) -> None:
        import mmfusion

        self.predictor = mmfusion.Predictor.from_pretrained(model, engine=engine, channels_last=True)
        self.images = Path(images)

    def __call__(self, batch: pd.DataFrame) -> pd.DataFrame:
        with tempfile.TemporaryDirectory() as folder:
            rows = batch.to_dict("records")
            rows = [{**row, "image": self.file(row.get("image"), Path(folder, str(i)))} for i, row in enumerate(rows)]
            found = self.predictor.predict(rows, batch_size=len(rows))
        table = pd.DataFrame({"label": [each.get("label") for each in found]}, index=batch.index, dtype=object)
        if "id" in batch:
            table.insert(0, "id", batch["id"])
        for label in self.predictor.labels:
            table[f"p_{label}"] = [each.get("probabilities", {}).get(label, float("nan")) for each in found]
        table["error"] = pd.Series([each.get("error", "") for each in found], index=batch.index, dtype=object)
        return table

    def file(self, cell: Any, copy: Path) -> Path | None:
        """The image file of a cell; embedded images are written to ``copy``: a damaged one fails only its row."""
        if isinstance(cell, Mapping):
            if cell.get("bytes"):
                copy.write_bytes(cell["bytes"])
                return copy
            cell = cell.get("path")
        return self.images / cell if isinstance(cell, str) and cell else None


def predictions(data: ray.data.Dataset, *, workers: int, batch_size: int, worker: type = Diagnose, **model: Any) -> Any:
    """The predictions of a data set, in its order."""
    ray.data.DataContext.get_current().execution_options.preserve_order = True
    how: dict[str, Any] = dict(batch_format="pandas", batch_size=batch_size, fn_constructor_kwargs=model)
    pool = ray.data.ActorPoolStrategy(size=workers)
    # half a CPU each: workers that claim all CPUs leave none for reading, and wait for it forever
    return data.map_batches(worker, compute=pool, num_cpus=0.5, **how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True, help="Parquet file or folder of such files")
    parser.add_argument("--images", default=".", help="folder of the images")
    parser.add_argument("--output", required=True, help="folder to write to")
    parser.add_argument("--engine", choices=["torch", "onnx"])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args()
    model = {"model": options.model, "images": str(Path(options.images).resolve()), "engine": options.engine}
    data = ray.data.read_parquet(options.data)
    found = predictions(data, workers=options.workers, batch_size=options.batch_size, **model)
    found.write_parquet(str(Path(options.output).resolve()))


if __name__ == "__main__":
    main()
