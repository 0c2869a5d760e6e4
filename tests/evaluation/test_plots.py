from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmfusion.evaluation import plots

NAMES = ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]


def is_picture(path) -> bool:
    with Image.open(path) as image:
        return image.format == "PNG" and len(np.unique(np.asarray(image))) > 50


def test_confusion_matrix_with_an_absent_class(tmp_path):
    counts = np.arange(49).reshape(7, 7)
    counts[3] = 0
    assert is_picture(plots.plot_confusion_matrix(counts, NAMES, tmp_path / "new" / "cm.png"))


def test_roc_with_an_absent_class(tmp_path):
    rng = np.random.default_rng(0)
    labels, probabilities = rng.integers(0, 6, 100), rng.dirichlet(np.ones(7), 100)
    assert is_picture(plots.plot_roc(labels, probabilities, NAMES, tmp_path / "roc.png"))


def test_training_curves(tmp_path):
    log = tmp_path / "metrics.jsonl"
    records = [{"epoch": e, "train_loss": 1 / e, "nll": 2 / e, "accuracy": e / 3} for e in (1, 2)] + [{"epoch": 3}]
    log.write_text("".join(json.dumps(r) + "\n" for r in records))
    assert is_picture(plots.plot_training_curves(log, tmp_path / "curves.png"))
    with pytest.raises(FileNotFoundError):
        plots.plot_training_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")


def test_dollars_in_a_class_name_are_no_formula(tmp_path: Path) -> None:
    assert (
        plots.plot_confusion_matrix(np.eye(2, dtype=int), [r"$\frac{a$", "b"], tmp_path / "c.png").stat().st_size > 1000
    )
