"""A step of `mmfusion train` compared with a plain loop: the same timm tower and head, AdamW, clipped gradients.

Both decode and augment their images, 200 x 150 JPEGs of noise, without loader processes. Steps of both alternate, so
that a busy machine slows both equally. `--table` also shows the effect of each time-saving option of `train` on the
ratio. Budget: 1.03.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import timm
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmfusion import registry
from mmfusion.images.augmentations import row_rng
from mmfusion.images.opening import open_image, to_tensor
from mmfusion.training import ModelConfig, ProcessorConfig, RunConfig, TrainConfig, train
from mmfusion.training.trainer import FusionTrainer
from timing import device, machine

BUDGET = 1.03
CLASSES = 7
TABLE: dict[str, dict[str, Any]] = {f"freeze_stages {k}": {"freeze_stages": k} for k in range(5)}
TABLE |= {"freeze_norm": {"freeze_norm": True}, "freeze_encoders": {"freeze_encoders": True}, "ema": {"ema": 0.998}}


class EnoughError(Exception):
    """Ends a run after its last timed step."""


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Data set of a hand-written script."""

    def __init__(self, files: list[Path], size: int, augment: str) -> None:
        self.files, self.size, self.augment = files, size, registry.get("augmentation", augment)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        image, norm = open_image(self.files[i], size=self.size), (0.5, 0.5, 0.5)
        image = self.augment(image, self.size, row_rng(0, 0, str(i)), interpolation="bicubic", fill=(127, 127, 127))
        return to_tensor(image, norm, norm), i % CLASSES


def bare_step(encoder: str, files: list[Path], size: int, batch: int, augment: str) -> Callable[[], None]:
    """One step of a plain loop."""
    tower = timm.create_model(encoder, num_classes=0)
    width = tower.head_hidden_size
    head = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Dropout(0.5), nn.Linear(256, CLASSES))
    model = nn.Sequential(tower, head).to(device(), memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    loader = DataLoader(Pictures(files, size, augment), batch, shuffle=True, drop_last=True)

    def forever() -> Iterator[Any]:
        while True:
            yield from loader

    batches = forever()

    def step() -> None:
        images, labels = (x.to(device()) for x in next(batches))
        loss = nn.functional.cross_entropy(model(images.to(memory_format=torch.channels_last)), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()

    return step


def clock() -> float:
    """Wall time in seconds with an accelerator, else CPU time, on which other processes have little effect."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def compared(config: RunConfig, bare: Callable[[], None], steps: int) -> tuple[float, float, float]:
    """Median ratio of the time of our step to that of the plain step after it, and both medians in seconds."""
    ours: list[float] = []
    theirs: list[float] = []
    plain_step, began = FusionTrainer.training_step, list[float]()

    def training_step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if began:
            ours.append(clock() - began[0])
            start = clock()
            bare()
            theirs.append(clock() - start)
        if len(ours) > steps:
            raise EnoughError
        began[:] = [clock()]
        return plain_step(self, *args, **kwargs)

    with mock.patch.object(FusionTrainer, "training_step", training_step), contextlib.suppress(EnoughError):
        train(config, images_checked=True)
    ours, theirs = ours[1:], theirs[1:]  # the first of each allocates
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), statistics.median(ours), statistics.median(theirs)


def write_pictures(root: Path, rows: int) -> list[Path]:
    """Write JPEGs of noise, enlarged from a few pixels to 200 x 150, and their table."""
    rng = np.random.default_rng(0)
    (root / "images").mkdir(parents=True)
    files = [root / "images" / f"{row}.jpg" for row in range(rows)]
    with open(root / "cases.csv", "w", newline="") as table:
        rows_of = csv.writer(table)
        rows_of.writerow(["image", "label", "split"])
        for row, file in enumerate(files):
            noise = Image.fromarray(rng.integers(0, 256, (15, 20, 3), dtype=np.uint8))
            noise.resize((200, 150), Image.Resampling.BICUBIC).save(file, quality=90)
            rows_of.writerow([file.name, f"class {row % CLASSES}", "train"])
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", default="tf_efficientnet_lite0")
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--augment", default="dermoscopy")
    parser.add_argument("--table", action="store_true", help="also measure each time-saving option")
    parser.add_argument("--quick", action="store_true", help="three steps of a small tower: a check that it runs")
    options = parser.parse_args()
    if options.quick:
        options.encoder, options.size, options.batch, options.steps = "test_efficientnet", 32, 8, 3

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = write_pictures(root / "data", options.batch * (options.steps + 3))
        bare = bare_step(options.encoder, files, options.size, options.batch, options.augment)

        def measured(name: str, size: int = options.size, **settings: Any) -> float:
            config = RunConfig(
                data=str(root / "data"),
                output=str(root / name),
                model=ModelConfig(name="image_lite0", image_encoder=options.encoder),
                processor=ProcessorConfig(image_size=size, augment=options.augment),
                train=TrainConfig(batch_size=options.batch, precision="fp32", **settings),
            )
            ratio, ours, theirs = compared(config, bare, options.steps)
            print(f"{name:20} {ratio:.3f} of the plain step ({ours:.3f} s, {theirs:.3f} s)", flush=True)
            return ratio

        ratio = measured("default")
        if options.table:
            for name, settings in TABLE.items():
                measured(name, **settings)
            for size in (options.size * 3 // 4, options.size * 9 // 7):
                measured(f"{size} px", size)
    print(f"\n{machine()}; {options.encoder}, {options.size} px, batch {options.batch}: {ratio:.3f}; budget {BUDGET}")


if __name__ == "__main__":
    main()
