"""Rows of a run: read and checked, then opened as encoded cases or as cached features of frozen encoders."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor
from torch.utils.data import Sampler

from mmfusion.auditing.partition import group_lines
from mmfusion.data import CaseTable, MultimodalDataset, balanced_sampler, check_images, read_cases
from mmfusion.data.formats import has_table
from mmfusion.data.memory import data_set
from mmfusion.decisions import check_classes
from mmfusion.inference.predictor import Predictor
from mmfusion.training.config import RunConfig, TrainConfig
from mmfusion.training.contents import check_contents
from mmfusion.training.feature_cache import FeatureCache
from mmfusion.training.features import FeatureRows


def read_training_cases(config: RunConfig, images_checked: bool) -> CaseTable:
    """The valid rows, all with a split; ValueError for bad rows, or too few rows or classes to train on."""
    cases = read_cases(config.data, config.dataset)
    line = check_contents(config, cases)  # before every image is opened
    if PartialState().is_main_process:
        print(line)
    cases.check_labels(config.dataset)
    looks = config.dataset.check_images and not images_checked
    cases = (check_images(cases) if looks else cases).resolve(config.dataset.on_bad_row)
    cases = cases.split_or_draw(config.dataset, config.seed)
    if PartialState().is_main_process:
        print("\n".join(group_lines(cases, config.dataset)))
    count = cases.splits.get("train", 0)
    if count == 0:
        raise ValueError(f"{cases.source} has no rows of the split 'train'; it has {cases.splits or 'no rows'}.")
    if len(cases.labels) < cases.question.fewest:
        classes = f"the training rows have only one class, {cases.labels}; two are needed"
        named = " The folder names are the classes; use dataset.table for a table with the labels."
        raise ValueError(f"{cases.source}: {classes}.{named if _has_no_table(config) else ''}")
    if config.train.batch_size > count and config.train.batch_size != TrainConfig.batch_size:
        raise ValueError(f"train.batch_size is {config.train.batch_size}, but there are only {count} training rows.")
    if config.train.alarm:
        check_classes(config.train.alarm, cases.labels)
    by_validation: dict[str, Any] = {
        "patience": None,
        "prior_strength": 0.0,
        "tta": False,
        "sensitivity": None,
        "operating_points": [],
    }
    asked = [name for name, off in by_validation.items() if getattr(config.train, name) != off]
    if asked and "val" not in cases.splits:
        off = "null" if by_validation[asked[0]] is None else str(by_validation[asked[0]]).lower()
        raise ValueError(f"train.{asked[0]} needs validation rows, but there are none; set it to {off}, or add some.")
    return cases


def _has_no_table(config: RunConfig) -> bool:
    return config.dataset.table is None and not has_table(data_set(config.data))


class EpochOrder(Sampler[int]):
    """Order of the training rows in an epoch, which depends only on seed and epoch.

    Every process draws the same order and takes its share, so N processes with batches of B see the same as one process
    with batches of N x B, and a resumed run continues the same order.

    Args:
        rows: Number of rows, and of draws per epoch.
        seed: Seed of the run.
        weights: (rows,) relative frequency of each row, drawn with replacement; None uses every row once.
        leave_out: Number of rows to drop from the end of each epoch.
    """

    def __init__(self, rows: int, seed: int, weights: Tensor | None = None, leave_out: int = 0) -> None:
        self.rows, self.seed, self.weights, self.leave_out = rows, seed, weights, leave_out
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.rows - self.leave_out

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        if self.weights is None:
            order = torch.randperm(self.rows, generator=generator)
        else:
            order = torch.multinomial(self.weights, self.rows, replacement=True, generator=generator)
        yield from order[: len(self)].tolist()


@dataclass(frozen=True)
class Rows:
    """Data sets of a run.

    Attributes:
        train: Training rows, with the run's augmentation.
        val: Validation rows, or None without any.
        order: Order of the training rows.
        open_rows: Opens valid rows of the table for inference; None encodes them with the processor.
    """

    train: MultimodalDataset | FeatureRows
    val: MultimodalDataset | FeatureRows | None
    order: EpochOrder
    open_rows: Callable[[CaseTable], FeatureRows] | None

    def begin_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, for order, augmentation and image size."""
        self.order.set_epoch(epoch)
        self.train.set_epoch(epoch)


def open_rows(config: RunConfig, cases: CaseTable, predictor: Predictor, processes: int) -> Rows:
    """Open the rows of a run; with ``train.feature_cache``, compute missing features."""
    t, train_cases = config.train, cases.select("train")
    val_cases = cases.select("val") if "val" in cases.splits else None
    drawn: dict[str, Any] = {"augment": None if config.processor.augment == "none" else config.processor.augment}
    drawn["seed"] = config.seed
    cached: Callable[..., FeatureRows] | None = None
    if t.feature_cache is not None:
        cached = FeatureCache(t.feature_cache, predictor, cases, workers=t.workers).rows
        drawn["views"] = t.feature_views
    elif t.image_sizes:
        drawn["image_sizes"] = [t.image_sizes[epoch * len(t.image_sizes) // t.epochs] for epoch in range(t.epochs)]
    opened: Any = cached or partial(MultimodalDataset, processor=predictor.processor)
    train, val = opened(train_cases, **drawn), None if val_cases is None else opened(val_cases)
    weights = torch.as_tensor(balanced_sampler(train.labels).weights) if t.sampler == "balanced" else None
    # BatchNorm cannot train on a last batch of one row
    left_over = processes == 1 and len(train) % t.batch_size == 1 < t.batch_size
    order = EpochOrder(len(train), config.seed, weights, leave_out=int(left_over))
    return Rows(train, val, order, cached)
