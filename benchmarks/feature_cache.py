"""Training on cached features of frozen towers, compared with encoding in every epoch: an epoch, and a whole study.

Frozen EfficientNet-Lite0 and MiniLM, concatenation and an MLP head, noise images (weights do not change the cost).
Budget: a study of `--runs` runs of `--epochs` epochs, including the computation of the features, 20 times faster.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from memory import write_cases
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig, TrainResult, train
from timing import machine

BUDGET = 20.0


def run(data: Path, output: Path, cache: Path | None, size: int, epochs: int) -> TrainResult:
    model = ModelConfig(name="mibf_lite0", text_encoder="minilm", fusion="concat", head="mlp")
    options: dict[str, Any] = {"freeze_encoders": True, "feature_cache": None if cache is None else str(cache)}
    return train(
        RunConfig(
            data=str(data),
            output=str(output),
            model=model,
            processor=ProcessorConfig(image_size=size, augment="none", max_length=32),
            train=TrainConfig(epochs=epochs, batch_size=64, precision="fp32", **options),
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--runs", type=int, default=57)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--quick", action="store_true", help="100 rows at 64 px: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.rows, options.size = 100, 64

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_cases(root / "data", options.rows)
        seconds = {}
        for name, cache, epochs in (("encoded", None, 2), ("cached", root / "cache", 6)):
            began = time.perf_counter()
            result = run(root / "data", root / name, cache, options.size, epochs)
            seconds[f"{name}, whole run"] = time.perf_counter() - began
            seconds[name] = statistics.median(record["seconds"] for record in result.history)
        # time of the first run outside its epochs, minus the same time of a later run
        began = time.perf_counter()
        run(root / "data", root / "again", root / "cache", options.size, 6)
        making = seconds["cached, whole run"] - (time.perf_counter() - began)

    epochs = options.runs * options.epochs
    study = epochs * seconds["encoded"] / (making + epochs * seconds["cached"])
    verdict = "" if study >= BUDGET else "under"
    print(f"\n{machine()}; {options.rows} rows, {options.size} px")
    print(f"epoch: encoded {seconds['encoded']:.2f} s, cached {seconds['cached']:.2f} s; ", end="")
    print(f"{seconds['encoded'] / seconds['cached']:.1f} times faster; making the features {making:.1f} s")
    print(f"{options.runs} runs of {options.epochs} epochs: {study:.1f} times faster   budget {BUDGET} {verdict}")


if __name__ == "__main__":
    main()
