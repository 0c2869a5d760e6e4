"""Confident learning by hand, and swapped labels that an audit finds."""

from __future__ import annotations

import csv

import numpy as np
from PIL import Image

import mmfusion
from mmfusion.auditing.label_errors import confident_errors, out_of_fold


def test_confident_errors_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1])
    p = np.array([0.9, 0.8, 0.1, 0.2, 0.3, 0.4])  # of class 0; means of the labeled rows: 0.6 and 0.7
    rows, classes = confident_errors(labels, np.column_stack([p, 1 - p]))
    assert rows.tolist() == [2] and classes.tolist() == [1]
    p[3] = 0.95
    rows, classes = confident_errors(labels, np.column_stack([p, 1 - p]))
    assert rows.tolist() == [3, 2] and classes.tolist() == [0, 1]  # by margin: 0.9, then 0.8


def test_no_group_is_judged_by_a_model_that_saw_it():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 2)
    labels = rng.integers(0, 2, 40)[groups]
    own = np.eye(40)[groups]  # features that only reveal the group
    assert out_of_fold(own, labels, groups).max() < 0.9


def test_an_audit_finds_swapped_labels(tmp_path):
    rng = np.random.default_rng(0)
    swapped = {"7.png", "30.png"}
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "label"])
        for i in range(60):
            pixels = rng.integers(0, 60, (32, 32, 3))
            pixels[..., i % 2] += 150
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{i}.png")
            table.writerow([f"{i}.png", "ab"[(i + (f"{i}.png" in swapped)) % 2]])
    model = mmfusion.create_model("test_image", num_classes=2)
    processor = mmfusion.Processor(["a", "b"], image_size=32)
    folder = mmfusion.save_pretrained(model, tmp_path / "model", processor)
    options = {
        "label_errors": f"local-dir:{folder}",
        "feature_cache": str(tmp_path / "cache"),
        "output": str(tmp_path / "out"),
    }
    for _ in range(2):  # computed, then from the cache
        found = [
            each for each in mmfusion.audit(tmp_path / "cases.csv", **options).findings if each.check == "label_error"
        ]
        assert {row.partition(":")[0] for row in found[0].rows} == swapped
    assert found[0].severity == "warning" and len(list((tmp_path / "cache").iterdir())) == 1
    mmfusion.save_pretrained(mmfusion.create_model("test_image", num_classes=2), tmp_path / "model", processor)
    mmfusion.audit(tmp_path / "cases.csv", **options)
    assert len(list((tmp_path / "cache").iterdir())) == 2  # trained again under its old name: other features
