"""The torch data set: conversion of rows, and augmentation that depends only on seed, epoch and row."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mmfusion import registry
from mmfusion.data import CaseTable, DatasetConfig, MultimodalDataset, Processor, fit_wordpiece, make_demo, read_cases
from mmfusion.images.augmentations import row_rng

SKIN = "{age}-year-old {sex}, lesion on the {localization}"


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> CaseTable:
    root = make_demo(tmp_path_factory.mktemp("demo"), n=60, seed=2)
    return read_cases(root, DatasetConfig(text_template=SKIN, group_column="patient_id")).resolve()


@pytest.fixture(scope="module")
def processor(cases: CaseTable) -> Processor:
    reader = Processor(text_template=SKIN)
    texts = [reader.text_of(row) or "" for row in cases.frame.to_dict("records")]
    return Processor(labels=cases.labels, image_size=32, tokenizer=fit_wordpiece(texts), text_template=SKIN)


def _batches(
    dataset: MultimodalDataset, epoch: int, *, order: Sequence[int] | None = None, workers: int = 0
) -> dict[str, torch.Tensor]:
    """Row id -> pixels."""
    dataset.set_epoch(epoch)
    order = range(len(dataset)) if order is None else order
    return dict(zip(dataset.ids[order].tolist(), _drawn(dataset, order, workers), strict=True))


def _drawn(dataset: MultimodalDataset, order: Sequence[int], workers: int = 0) -> torch.Tensor:
    """Pixels of rows in a custom training loop."""
    loader = DataLoader(dataset, 8, sampler=order, num_workers=workers, collate_fn=dataset.collate)
    return torch.cat([batch["pixel_values"] for batch in loader])


def _equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_rows(cases: CaseTable, processor: Processor) -> None:
    dataset = MultimodalDataset(cases, processor)
    assert len(dataset) == 60
    assert [cases.labels[i] for i in dataset.labels] == cases.frame["label"].tolist()
    for i in (0, 17, 59):
        row = cases.frame.iloc[i].to_dict()
        image = cases.image_root / row["image"] if row["image"] else None
        expected = processor.encode_row({**row, "image": image})
        item = dataset[i]
        assert item.keys() == expected.keys()
        assert torch.equal(item["pixel_values"], expected["pixel_values"])
        assert item["input_ids"] == expected["input_ids"] and item["labels"] == expected["labels"]
    with pytest.raises(IndexError):
        dataset[60]
    assert torch.equal(dataset[-1]["pixel_values"], dataset[59]["pixel_values"])


def test_missing_modalities_are_told(cases: CaseTable, processor: Processor) -> None:
    batch = processor.collate([MultimodalDataset(cases, processor)[i] for i in range(60)])
    assert batch["image_present"].tolist() == cases.frame["image"].notna().tolist()
    assert not batch["image_present"].all()
    assert batch["text_present"].all()  # metadata make a text if there is no free text


def test_augmentation_depends_on_seed_epoch_and_row_alone(cases: CaseTable, processor: Processor) -> None:
    dataset = MultimodalDataset(cases, processor, augment="report", seed=4)
    first = _batches(dataset, 0)
    assert _equal(first, _batches(dataset, 0))
    assert _equal(first, _batches(dataset, 0, order=list(range(59, -1, -1))))
    assert _equal(first, _batches(dataset, 0, workers=2))
    assert _equal(_batches(dataset, 1, workers=2), _batches(dataset, 1))
    # a subset of the rows: the id matters, not the position
    part = MultimodalDataset(cases.select("val"), processor, augment="report", seed=4)
    assert all(torch.equal(first[key], pixels) for key, pixels in _batches(part, 0).items())

    pictured = cases.frame["id"][cases.frame["image"].notna()]
    for other in (_batches(dataset, 1), _batches(MultimodalDataset(cases, processor, augment="report", seed=5), 0)):
        assert not any(torch.equal(first[key], other[key]) for key in pictured)


def test_the_epoch_reaches_workers_that_stay_alive(cases: CaseTable, processor: Processor) -> None:
    dataset = MultimodalDataset(cases, processor, augment="report")
    loader = DataLoader(dataset, 8, num_workers=2, persistent_workers=True, collate_fn=processor.collate)
    for epoch in (0, 1):
        dataset.set_epoch(epoch)
        pixels = torch.cat([batch["pixel_values"] for batch in loader])
        assert torch.equal(pixels, torch.stack([dataset[i]["pixel_values"] for i in range(60)]))


def test_an_own_loop_draws_anew_each_time_without_being_told_the_epoch(cases: CaseTable, processor: Processor) -> None:
    """The n-th draw of a row is that of epoch n, for any order of rows and number of workers."""
    told = MultimodalDataset(cases, processor, augment="report", seed=4)
    epochs = [_batches(told, epoch) for epoch in range(3)]
    for workers in (0, 2):
        free = MultimodalDataset(cases, processor, augment="report", seed=4)
        for epoch, order in enumerate((list(range(60)), list(range(59, -1, -1)), list(range(60)))):
            drawn = _drawn(free, order, workers)
            assert torch.equal(drawn, torch.stack([epochs[epoch][str(free.ids[i])] for i in order]))
    free.set_epoch(1)  # an explicit epoch is used, however often rows are drawn
    assert all(torch.equal(free[3]["pixel_values"], epochs[1][str(free.ids[3])]) for _ in range(2))
    plain = MultimodalDataset(cases, processor)
    assert torch.equal(plain[3]["pixel_values"], plain[3]["pixel_values"]) and len(plain._draws) == 0


def test_no_global_generator_is_touched(cases: CaseTable, processor: Processor) -> None:
    dataset = MultimodalDataset(cases, processor, augment="report")
    dataset.set_epoch(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = dataset[0]["pixel_values"]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all() and random.getstate() == before[2]
    torch.manual_seed(99)
    random.seed(99)
    assert torch.equal(dataset[0]["pixel_values"], first)


def test_a_file_damaged_after_the_check_is_named(tmp_path: Path, processor: Processor) -> None:
    root = make_demo(tmp_path, n=50)
    cases = read_cases(root, DatasetConfig(text_template=SKIN))
    dataset = MultimodalDataset(cases, processor)
    data = (root / "images" / "demo_00003.jpg").read_bytes()
    (root / "images" / "demo_00003.jpg").write_bytes(data[: len(data) // 2])
    (root / "images" / "demo_00004.jpg").unlink()
    with pytest.raises(ValueError, match=r"demo_00003.jpg cannot be decoded"):
        dataset[3]
    with pytest.raises(FileNotFoundError, match=r"demo_00004.jpg does not exist"):
        dataset[4]


def test_refusals(tmp_path: Path, cases: CaseTable, processor: Processor) -> None:
    with pytest.raises(ValueError, match="Unknown augmentation 'zebra'; known: basic, dermoscopy, mri, report"):
        MultimodalDataset(cases, processor, augment="zebra")
    with pytest.raises(ValueError, match="Unknown label"):
        MultimodalDataset(cases, Processor(labels=["amber"], image_size=8))
    root = make_demo(tmp_path, n=50)
    (root / "images" / "demo_00003.jpg").unlink()
    with pytest.raises(ValueError, match=r"1 unresolved problems; call cases.resolve\(\) first"):
        MultimodalDataset(read_cases(root), processor)


def test_rows_without_labels(cases: CaseTable) -> None:
    unlabelled = CaseTable(cases.frame.assign(label=None), cases.image_root)
    dataset = MultimodalDataset(unlabelled, Processor(image_size=8))
    assert (dataset.labels == -1).all()
    assert "labels" not in dataset.processor.collate([dataset[0], dataset[1]])


def test_an_augmentation_of_ones_own(cases: CaseTable, processor: Processor) -> None:
    """An augmentation registered by name gets the row's generator and returns the model's image."""

    @registry.register("augmentation", "grey_of_the_row")
    def grey_of_the_row(
        image: Image.Image, size: int, rng: random.Random, *, interpolation: str, fill: Sequence[int]
    ) -> Image.Image:
        """One gray value, drawn for each row and epoch."""
        return Image.new("RGB", (size, size), (rng.randrange(256),) * 3)

    try:
        assert "grey_of_the_row" in registry.names("augmentation")
        dataset = MultimodalDataset(cases, processor, augment="grey_of_the_row", seed=3)
        i = next(i for i in range(len(dataset)) if dataset[i]["image_present"])
        for epoch in (0, 1):
            dataset.set_epoch(epoch)
            grey = row_rng(3, epoch, str(dataset.ids[i])).randrange(256)
            pixels = dataset[i]["pixel_values"]
            channel = (grey / 255 - processor.mean[0]) / processor.std[0]
            assert pixels[0].unique().tolist() == pytest.approx([channel], abs=1e-5)
    finally:
        registry.unregister("augmentation", "grey_of_the_row")
    with pytest.raises(ValueError, match="Unknown augmentation 'grey_of_the_row'"):
        MultimodalDataset(cases, processor, augment="grey_of_the_row")


def test_the_size_of_the_images_may_differ_by_epoch(cases: CaseTable, processor: Processor) -> None:
    dataset = MultimodalDataset(cases, processor, image_sizes=[16, 24])
    sides = []
    for epoch in range(3):
        dataset.set_epoch(epoch)
        sides.append(dataset[0]["pixel_values"].shape[-1])
    assert sides == [16, 24, 32]
