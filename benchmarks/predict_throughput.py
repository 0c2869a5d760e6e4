"""`mmfusion predict` on files, from the table to the CSV, compared with a hand-written loop and with the network alone.

The loop reads the same files with the same weights: Pillow decodes (JPEG at a fraction of its size, as in the library)
and resizes, NumPy makes a batch, and the network runs in `inference_mode` and channels_last. The network alone runs on
tensors in memory. All three run alternately in one process, in CPU time. Budgets: 0.95 of the speed of the loop, 0.90
of that of the network. Without `--data` nothing is measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image

from mmfusion.data import read_cases
from mmfusion.inference import AllRows, predict_path
from mmfusion.inference.run import open_predictor
from timing import machine

LOOP, NETWORK = 0.95, 0.90


def loop(predictor, files: list[Path], rest: list[dict], batch_size: int) -> None:
    """Decode, resize and normalize the files, and compute their probabilities."""
    size = predictor.processor.image_size
    mean, std = (np.array(x, dtype=np.float32) for x in (predictor.processor.mean, predictor.processor.std))
    for start, given in zip(range(0, len(files), batch_size), rest, strict=True):
        pixels = np.empty((len(files[start : start + batch_size]), size, size, 3), dtype=np.float32)
        for i, file in enumerate(files[start : start + batch_size]):
            with Image.open(file) as image:
                image.draft("RGB", (2 * size, 2 * size))
                side, (width, height) = min(image.size), image.size
                left, top = (width - side) / 2, (height - side) / 2
                box = (left, top, left + side, top + side)
                pixels[i] = image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, box=box)
        pixels = (pixels / 255 - mean) / std
        predictor.model(pixel_values=torch.from_numpy(pixels).permute(0, 3, 1, 2), **given).logits.softmax(-1).numpy()


def seconds(step: Callable[[], object]) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="folder of HAM10000: metadata.csv and images/")
    parser.add_argument("--model", default="mibf_v2_lite0.ham10000")
    parser.add_argument("--image-size", type=int, nargs="*", default=[112, 224])
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="32 rows at 112 px, one repeat: a check that it runs")
    options = parser.parse_args()
    if options.data is None:
        return print("predict_throughput: not measured, needs --data with the folder of HAM10000")
    if options.quick:
        options.image_size, options.rows, options.repeats = [112], 32, 1
    torch.set_num_threads(1)
    print(f"{machine()}; {options.model}, {options.rows} rows, batches of {options.batch_size}, medians of CPU time")
    print(f"{'pixels':>6} {'predict /s':>11} {'loop /s':>9} {'network /s':>11} {'of loop':>8} {'of network':>11}")
    for size in options.image_size:
        measure(options, size)


def measure(options: argparse.Namespace, size: int) -> None:
    predictor = open_predictor([options.model], device="cpu")
    predictor.processor = dataclasses.replace(predictor.processor, image_size=size)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        table, chosen = Path(folder) / "rows.csv", pd.read_csv(Path(options.data) / "metadata.csv").tail(options.rows)
        chosen.to_csv(table, index=False)
        for image in chosen[
            "image"
        ]:  # a folder of these images only, so that listing thousands of others is not measured
            (found,) = (Path(options.data) / "images").glob(f"{image}*")
            shutil.copy(found, folder)
        read = dataclasses.replace(predictor.dataset, image_root=folder)
        cases = read_cases(table, read, require_labels=False, processor_labels=predictor.labels)
        rows = AllRows(cases, predictor.processor)
        starts = range(0, len(rows), options.batch_size)
        batches = [rows.collate([rows[i] for i in range(len(rows))[s : s + options.batch_size]]) for s in starts]
        batches = [{k: v for k, v in batch.items() if k != "labels"} for batch in batches]
        rest = [{k: v for k, v in batch.items() if k != "pixel_values"} for batch in batches]
        files = [cases.image_root / image for image in cases.frame["image"]]
        fast = [b | {"pixel_values": b["pixel_values"].contiguous(memory_format=torch.channels_last)} for b in batches]
        how = {"dataset": read, "tta": False, "batch_size": options.batch_size}
        steps: list[Callable[[], object]] = [
            lambda: predict_path(predictor, table, Path(folder) / "out.csv", **how),
            lambda: loop(predictor, files, rest, options.batch_size),
            lambda: [predictor.model(**batch) for batch in fast],
        ]
        taken: list[list[float]] = [[] for _ in steps]
        with redirect_stdout(StringIO()):
            for turn in range(options.repeats + 1):  # the first is a warm-up
                for i in range(3) if turn % 2 else reversed(range(3)):
                    taken[i].append(seconds(steps[i]))
    ours, theirs, network = ([*each[1:]] for each in taken)
    ratios = [statistics.median([b / a for a, b in zip(ours, other, strict=True)]) for other in (theirs, network)]
    speeds = [options.rows / statistics.median(each) for each in (ours, theirs, network)]
    verdict = "over budget" if ratios[0] < LOOP or ratios[1] < NETWORK else ""
    print(
        f"{size:>6} {speeds[0]:>11.1f} {speeds[1]:>9.1f} {speeds[2]:>11.1f} {ratios[0]:>8.3f} {ratios[1]:>11.3f}  "
        f"{verdict}",
        flush=True,
    )


if __name__ == "__main__":
    main()
