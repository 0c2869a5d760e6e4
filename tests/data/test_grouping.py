"""Cases of several images: slices and views as rows, views as columns, regions of interest; joined labels and folds."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmfusion.data import DatasetConfig, MultimodalDataset, Processor, check_images, read_cases
from mmfusion.data.grouping import equally_spaced, slice_number
from mmfusion.images import opening
from mmfusion.images.augmentations import row_rng
from mmfusion.images.opening import region_box
from mmfusion.inference.rows import AllRows
from mmfusion.layers.cropping import centre_crop


def _picture(path: Path, value: int, size: tuple[int, int] = (24, 20)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value ^ 1)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Callable[..., Path]:
    """Write tables; each image in the first column of the first table is a gray image of its row number times
    ten."""

    def write(absent: tuple[str, ...] = (), **tables: str) -> Path:
        for name, content in tables.items():
            lines = content.strip().split("\n")
            (tmp_path / f"{name}.csv").write_text("\n".join(line.strip() for line in lines) + "\n")
        for i, line in enumerate(next(iter(tables.values())).strip().split("\n")[1:], start=1):
            for cell in line.strip().split(","):
                if cell.endswith(".png") and cell not in absent:
                    _picture(tmp_path / cell, 10 * i)
        return tmp_path

    return write


SLICES = """image,study,label,sex,echo
    s_10.png,A,x,F,1
    s_9.png,A,x,F,2
    t_1.png,B,y,M,1
    s_11.png,A,x,F,3
    t_2.png,B,y,M,1"""


def _problems(cases: Any) -> list[tuple[int, str, int | None]]:
    return [(problem.row, problem.message, problem.part_of) for problem in cases.problems]


def test_slices_are_ordered_by_the_number_in_their_names(root: Callable[..., Path]) -> None:
    cases = read_cases(root(t=SLICES), DatasetConfig(study_column="study"))
    assert cases.layout == "slices" and cases.problems == []
    assert cases.frame["image"].tolist() == [("s_9.png", "s_10.png", "s_11.png"), ("t_1.png", "t_2.png")]
    assert cases.frame.index.tolist() == [1, 3]
    assert cases.frame["id"].tolist() == cases.frame["group"].tolist() == ["A", "B"]
    assert cases.frame["label"].tolist() == ["x", "y"]
    # metadata in which the rows differ are missing
    assert cases.frame["sex"].tolist() == ["F", "M"] and cases.frame["echo"].tolist() == [None, "1"]
    assert cases.image_rows == {"s_10.png": 1, "s_9.png": 2, "s_11.png": 4, "t_1.png": 3, "t_2.png": 5}


def test_slices_are_ordered_by_a_column(root: Callable[..., Path]) -> None:
    table = """image,study,label,z
        a.png,A,x,2.5
        b.png,A,x,-1
        c.png,A,x,10
        d.png,A,x,
        e.png,A,x,10.0"""
    cases = read_cases(root(t=table), DatasetConfig(study_column="study", slice_column="z"))
    assert cases.frame["image"].tolist() == [("b.png", "a.png", "c.png")]
    assert _problems(cases) == [
        (4, "the slice number is missing or not a number", 1),
        (5, "duplicate slice number in this study, first in row 3", 1),
    ]


def test_a_cap_takes_equally_spaced_slices(root: Callable[..., Path]) -> None:
    assert slice_number("5_t2_SPACE_slice49.jpg") == 49 and slice_number("a/b.png") is None
    assert equally_spaced(3, None) == equally_spaced(3, 5) == [0, 1, 2]
    assert equally_spaced(9, 3) == [0, 4, 8] and equally_spaced(5, 1) == [2] and len(set(equally_spaced(20, 19))) == 19
    table = "image,study,label\n" + "\n".join(f"s{i}.png,A,x" for i in range(9))
    cases = read_cases(root(t=table), DatasetConfig(study_column="study", max_slices=3))
    assert cases.frame["image"].tolist() == [("s0.png", "s4.png", "s8.png")]


def test_a_bad_slice_is_one_problem_and_the_study_goes_on(root, caplog) -> None:
    folder = root(t=SLICES, absent=("t_2.png",))
    (folder / "s_11.png").write_bytes((folder / "s_11.png").read_bytes()[:60])
    cases = check_images(read_cases(folder, DatasetConfig(study_column="study")), progress=False)
    assert [(p.row, p.value, p.part_of) for p in cases.problems] == [(4, "s_11.png", 1), (5, "t_2.png", 3)]
    assert "cannot be decoded" in cases.problems[0].message and "does not exist" in cases.problems[1].message
    with pytest.raises(ValueError, match="2 problems in 2 of 2 rows"):
        cases.resolve("fail")
    with caplog.at_level(logging.WARNING):
        kept = cases.resolve("skip")
    assert kept.frame["image"].tolist() == [("s_9.png", "s_10.png"), ("t_1.png",)]
    assert "its case is kept without it" in caplog.text and "dropped" not in caplog.text
    assert kept.problems == []
    # prediction reads the study, too, and problems of others do not affect it
    rows = AllRows(cases, Processor(labels=["x", "y"], image_size=8))
    assert rows[0]["pixel_values"].shape == (2, 3, 8, 8) and rows[1]["slice_mask"] == [True]


def test_a_study_without_a_single_good_slice_is_a_bad_case(root: Callable[..., Path]) -> None:
    folder = root(t=SLICES, absent=("t_1.png",))
    (folder / "t_2.png").write_bytes(b"no picture")
    cases = check_images(read_cases(folder, DatasetConfig(study_column="study")), progress=False)
    assert cases.problems[-1].message == "none of its images is usable" and cases.problems[-1].part_of is None
    assert cases.resolve("skip").frame["id"].tolist() == ["A"]
    rows = AllRows(cases, Processor(labels=["x", "y"], image_size=8))
    with pytest.raises(ValueError, match="none of its images is usable"):
        rows[1]


def test_rows_of_a_study_have_to_agree(root: Callable[..., Path]) -> None:
    table = """image,study,label,split
        a1.png,A,x,train
        a2.png,A,y,train
        b1.png,B,y,train
        b2.png,B,y,test
        c1.png,,x,train
        d1.png,D,x,train
        d2.png,D,,"""
    cases = read_cases(root(t=table), DatasetConfig(study_column="study"))
    assert [m for _, m, part in _problems(cases) if part is None] == [
        "the rows of a study must agree, but these have x, y",
        "the rows of a study must agree, but these have train, test",
        "the row has no study",
    ]
    assert cases.resolve("skip").frame["image"].tolist() == [("d1.png", "d2.png")]


VIEWS = """image,patient,sequence,label
    1t1.png,1,t1,x
    1t2.png,1,t2,x
    2t2.png,2,t2,y
    3s.png,3,space,y
    4t1.png,4,t1,x
    4t1b.png,4,t1,x"""


def test_views_as_rows(root: Callable[..., Path], caplog: pytest.LogCaptureFixture) -> None:
    config = DatasetConfig(study_column="patient", view_column="sequence", views=["t1", "t2"])
    with caplog.at_level(logging.WARNING):
        cases = read_cases(root(t=VIEWS), config)
    assert "1 studies have none of the views t1, t2" in caplog.text
    assert cases.layout == "views"
    assert cases.frame["image"].tolist() == [("1t1.png", "1t2.png"), (None, "2t2.png"), ("4t1.png", None)]
    assert _problems(cases) == [(6, "duplicate view in this study, first in row 5", 5)]
    batch = _batch(cases)
    assert batch["pixel_values"].shape == (3, 2, 3, 8, 8)
    assert batch["view_mask"].tolist() == [[True, True], [False, True], [True, False]]
    assert batch["image_present"].all() and not batch["pixel_values"][1, 0].any()
    everything = read_cases(root(t=VIEWS), DatasetConfig(study_column="patient", view_column="sequence"))
    assert everything.frame["image"].tolist()[2] == ("3s.png", None, None)
    with pytest.raises(ValueError, match=r"no row of t.csv has sequence 'T9'; available: space, t1, t2"):
        read_cases(root(t=VIEWS), DatasetConfig(study_column="patient", view_column="sequence", views=["T9"]))


def test_views_as_columns(root: Callable[..., Path]) -> None:
    table = """t1,t2,label
        a1.png,a2.png,x
        ,b2.png,y
        c1.png,c2.png,y
        d1.png,d2.png,x
        ,,x"""
    folder = root(t=table, absent=("c2.png", "d1.png", "d2.png"))
    (folder / "a2.png").write_bytes(b"no picture")
    cases = check_images(read_cases(folder, DatasetConfig(view_columns=["t1", "t2"])), progress=False)
    assert cases.frame["image"].tolist() == [("a1.png", None), (None, "b2.png"), ("c1.png", None), None, None]
    assert cases.frame["id"].tolist() == ["a1.png", "b2.png", "c1.png", "d1.png", "row-5"]
    assert [(p.row, p.column, p.part_of) for p in cases.problems] == [
        (1, "image", 1),
        (3, "t2", 3),
        (4, "t1", 4),
        (4, "t2", 4),
        (4, "image", None),
        (5, "text", None),
    ]
    assert cases.metadata == []
    batch = _batch(cases)
    assert batch["view_mask"].tolist() == [[True, False], [False, True], [True, False]]


def _batch(cases: Any, **kwargs: Any) -> dict[str, torch.Tensor]:
    cases = cases.resolve("skip")
    dataset = MultimodalDataset(cases, Processor(labels=cases.labels, image_size=8), **kwargs)
    return dataset.processor.collate([dataset[i] for i in range(len(dataset))])


def test_a_batch_of_studies_is_padded(root: Callable[..., Path]) -> None:
    batch = _batch(read_cases(root(t=SLICES), DatasetConfig(study_column="study")))
    assert batch["pixel_values"].shape == (2, 3, 3, 8, 8)
    assert batch["slice_mask"].tolist() == [[True, True, True], [True, True, False]]
    assert not batch["pixel_values"][1, 2].any() and batch["labels"].tolist() == [0, 1]
    mean, std = Processor().mean[0], Processor().std[0]
    grey = (batch["pixel_values"][:, :, 0, 0, 0] * std + mean) * 255
    assert grey[0].tolist() == pytest.approx([20, 10, 40], abs=1e-3)
    assert grey[1, :2].tolist() == pytest.approx([30, 50], abs=1e-3)


def test_each_slice_is_decoded_once_and_augmented_alike(root, monkeypatch) -> None:
    folder = root(t=SLICES)
    ramp = np.arange(24 * 20 * 3, dtype=np.uint32).reshape(20, 24, 3) % 251
    for name in ("s_9", "s_10", "s_11"):
        Image.fromarray(ramp.astype(np.uint8)).save(folder / f"{name}.png")
    opened: list[str] = []
    read_slices = opening.read_slices
    monkeypatch.setattr(
        opening, "read_slices", lambda path, *args: (opened.append(path.name), read_slices(path, *args))[1]
    )
    cases = read_cases(folder, DatasetConfig(study_column="study")).resolve()
    dataset = MultimodalDataset(cases, Processor(labels=["x", "y"], image_size=8), augment="report", seed=1)
    pixels = dataset[0]["pixel_values"]
    assert opened == ["s_9.png", "s_10.png", "s_11.png"]
    assert torch.equal(pixels[0], pixels[1]) and torch.equal(pixels[0], pixels[2])
    dataset.set_epoch(1)
    assert not torch.equal(dataset[0]["pixel_values"], pixels)


def test_a_study_without_images_is_a_missing_image() -> None:
    one = Processor(image_size=8)
    items = [one.encode(slices=[]), one.encode(slices=[Image.radial_gradient("L")] * 2)]
    batch = one.collate(items)
    assert batch["image_present"].tolist() == [False, True]
    assert batch["slice_mask"].tolist() == [[False, False], [True, True]]
    assert one.collate(items[:1])["pixel_values"].shape == (1, 1, 3, 8, 8)
    with pytest.raises(ValueError, match="or views"):
        one.encode(Image.radial_gradient("L"), slices=[])
    with pytest.raises(TypeError, match="put a single image in a list"):
        one.encode(slices="a.png")


REGIONS = """image,label,x0,y0,x1,y1
    a.png,x,2,3,10,11
    b.png,y,,,,
    c.png,x,5,5,5,9
    d.png,x,1,,4,4
    e.png,y,0,0,99,9"""


def test_regions_of_interest(root: Callable[..., Path]) -> None:
    folder = root(t=REGIONS)
    gradient = np.zeros((20, 24, 3), dtype=np.uint8)
    gradient[3:11, 2:10] = 200
    Image.fromarray(gradient).save(folder / "a.png")
    cases = check_images(read_cases(folder, DatasetConfig(roi_columns=["x0", "y0", "x1", "y1"])), progress=False)
    assert cases.regions == {1: (2, 3, 10, 11), 5: (0, 0, 99, 9)}
    assert [(row, message.split(":")[0].split(" (")[0]) for row, message, _ in _problems(cases)] == [
        (3, "the region is empty"),
        (4, "expected four numbers or none"),
        (5, "the region of interest"),
    ]
    batch = _batch(cases)
    assert batch["roi_values"].shape == batch["pixel_values"].shape == (2, 3, 8, 8)
    mean, std = Processor().mean[0], Processor().std[0]
    # the box contains only the bright square; a row without a box uses its center
    assert torch.allclose((batch["roi_values"][0, 0] * std + mean) * 255, torch.tensor(200.0), atol=1e-3)
    assert torch.allclose((batch["roi_values"][1, 0] * std + mean) * 255, torch.tensor(20.0), atol=1e-3)
    augmented = _batch(cases, augment="report")
    assert augmented["roi_values"].shape == (2, 3, 8, 8)


def test_a_region_is_widened_to_a_square_within_the_image() -> None:
    assert region_box((2, 3, 10, 11), (24, 20)) == (2, 3, 10, 11)
    assert region_box((2, 8, 12, 10), (24, 20)) == (2, 4, 12, 14)
    assert region_box((0, 0, 10, 2), (24, 20)) == (0, 0, 10, 10)
    assert region_box((1, 1, 24, 5), (24, 20)) == (1, 0, 24, 20)
    with pytest.raises(ValueError, match="is not inside the image"):
        region_box((0, 0, 30, 5), (24, 20))


@pytest.mark.parametrize("size", [(64, 64), (80, 64), (64, 100)])
@pytest.mark.parametrize("crop_pct", [1.0, 0.75])
def test_the_centre_is_the_region_of_a_tower_that_gets_none(size: tuple[int, int], crop_pct: float) -> None:
    """A row without a box has the same region alone and in a batch with boxes (neighboring pixels differ by 0.07)."""
    across, down = np.meshgrid(*(np.linspace(0, 255, side) for side in size))
    picture = Image.fromarray(np.stack([across, down, 0 * down], axis=-1).round().astype(np.uint8))
    item = Processor(image_size=32, crop_pct=crop_pct).encode(picture, roi="centre")
    torch.testing.assert_close(item["roi_values"], centre_crop(item["pixel_values"], 0.5), atol=0.05, rtol=0)


def test_the_region_is_augmented_as_the_image_is() -> None:
    picture = Image.fromarray(np.arange(16 * 16, dtype=np.uint8).reshape(16, 16))
    one = Processor(image_size=8)
    item = one.encode(picture, roi=(0, 0, 16, 16), augment="report", rng=row_rng(0, 0, "a"))
    assert torch.equal(item["roi_values"], item["pixel_values"])


TARGETS = """study,label,age,fold
    A,x,50,0
    B,x,60,1"""


def test_labels_from_a_second_table_and_splits_from_folds(root: Callable[..., Path]) -> None:
    rows = """image,study,age
        a1.png,A,49
        b1.png,B,
        b2.png,B,
        c1.png,C,"""
    config = DatasetConfig(
        table="rows.csv",
        labels_table="targets.csv",
        join_on="study",
        fold_column="fold",
        folds={"test": [0], "val": [7]},
        study_column="study",
    )
    folder = root(rows=rows, targets=TARGETS)
    with pytest.raises(ValueError, match=r"no row of rows.csv has the fold 7; there are 0, 1"):
        read_cases(folder, config)
    config.folds = {"test": ["0"]}
    cases = read_cases(folder, config)
    assert cases.frame["label"].tolist() == ["x", "x", None]
    assert cases.frame["split"].tolist() == ["test", "train", None]
    assert cases.frame["age"].tolist() == ["49", None, None]  # a column in both tables comes from the first
    assert _problems(cases)[0][1] == "missing label"
    # predicted, the data need neither
    (folder / "targets.csv").unlink()
    assert len(read_cases(folder, config, processor_labels=["x", "y"], require_labels=False)) == 3


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ("study,label\nA,x\nA,y", r"study 'A' in rows 1 and 2; values of dataset.join_on must be unique"),
        ("patient,label\nA,x", r"targets.csv has no column 'study' \(dataset.join_on\)"),
    ],
)
def test_a_second_table_that_cannot_be_joined(root: Callable[..., Path], targets: str, message: str) -> None:
    folder = root(rows="image,study\na1.png,A", targets=targets)
    with pytest.raises(ValueError, match=message):
        read_cases(folder, DatasetConfig(table="rows.csv", labels_table="targets.csv", join_on="study"))


def test_a_broken_line_of_the_second_table_is_a_broken_row(root: Callable[..., Path]) -> None:
    folder = root(rows="image,study\na1.png,A\nb1.png,B", targets="study,label\nA,x\nB,y,z")
    cases = read_cases(folder, DatasetConfig(table="rows.csv", labels_table="targets.csv", join_on="study"))
    assert _problems(cases) == [(2, "targets.csv, row 2: the line has 3 cells, but the header 2", None)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"study_column": "s", "view_columns": ["a", "b"]}, "cannot be combined"),
        ({"slice_column": "z"}, "dataset.slice_column requires dataset.study_column"),
        ({"max_slices": 0, "study_column": "s"}, "max_slices=0"),
        ({"views": ["t1"], "study_column": "s"}, "dataset.views requires dataset.view_column"),
        ({"roi_columns": ["a", "b"]}, "roi_columns needs four"),
        ({"view_columns": ["a", "a"]}, "has duplicate names"),
        ({"study_column": "study"}, r"no column 'study' \(dataset.study_column\)"),
        ({"view_columns": ["t1", "t2"]}, r"no column 't1' \(dataset.view_columns\), 't2'"),
        ({"join_on": "a"}, "labels_table and dataset.join_on must be given together"),
        ({"fold_column": "label"}, "must be given together"),
        ({"fold_column": "nofold", "folds": {"test": [0]}}, r"no column 'nofold' \(dataset.fold_column\)"),
        ({"fold_column": "label", "folds": {"final": ["x"]}}, "unknown split 'final'"),
        ({"fold_column": "label", "folds": {"test": ["x"], "val": ["x"]}}, "fold x is in test and in val"),
    ],
)
def test_options_that_do_not_go_together(root: Callable[..., Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_cases(root(t="image,label\na.png,x"), DatasetConfig(**options))


def _spine() -> Path:
    data = Path(os.environ.get("MMFUSION_DATA", Path(__file__).parents[3] / "shared" / "data"))
    return data / "spider_lumbar"


@pytest.mark.skipif(not _spine().is_dir(), reason="needs shared/data/spider_lumbar, or MMFUSION_DATA")
def test_the_spine_data_are_read_whole() -> None:
    labels = {"labels_table": "patients.csv", "join_on": "patient_id", "study_column": "patient_id"}
    folds: dict[str, Any] = {"fold_column": "fold", "folds": {"test": [0], "val": [1]}}
    views = DatasetConfig(
        table="series.csv",
        image_root="midsagittal",
        label_column="any_modic",
        view_column="sequence",
        views=["t1", "t2"],
        **labels,
        **folds,
    )
    cases = read_cases(_spine(), views)
    assert cases.problems == [] and cases.splits == {"train": 128, "val": 44, "test": 44}
    pairs = [tuple(path is not None for path in paths) for paths in cases.frame["image"]]
    assert [pairs.count(pair) for pair in ((True, True), (True, False), (False, True))] == [190, 6, 20]
    slices = DatasetConfig(
        table="t2space_slices.csv", image_root="t2space_slices", label_column="severity", **labels, **folds
    )
    cases = read_cases(_spine(), slices)
    assert cases.problems == [] and cases.splits == {"train": 27, "val": 7, "test": 7}
    lengths = [len(paths) for paths in cases.frame["image"]]
    assert (sum(lengths), min(lengths), max(lengths)) == (853, 13, 30)
    first = cases.frame["image"].iloc[0]
    assert [slice_number(path) for path in first] == list(range(49, 49 + len(first)))
