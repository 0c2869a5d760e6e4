"""An external package with a part of each kind works with the commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from mmfusion.cli import main as cli

PACKAGE = {
    "__init__.py": '"""Parts of a newcomer."""\n\nfrom my_pkg import blocks, metrics, towers\n',
    "towers.py": '''
from torch import nn

from mmfusion import register
from mmfusion.towers import Tower


@register("image_tower", "patches")
class Patches(Tower):
    """One convolution over patches of 8 x 8 pixels."""

    modality, side, layout = "image", "image", "image"

    def __init__(self, encoder, width=16):
        super().__init__()
        self.num_features = width
        self.pretrained_cfg = {"input_size": (3, 32, 32), "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
        self.conv = nn.Conv2d(3, width, kernel_size=8, stride=8)

    def encode(self, pixel_values):
        tokens = self.conv(pixel_values).flatten(2).transpose(1, 2)
        return {"tokens": tokens, "pooled": tokens.mean(dim=1)}
''',
    "blocks.py": '''
import torch
from torch import nn
from torch.nn import functional as F

from mmfusion import Fused, FusionOutput, register
from mmfusion.losses import Loss


@register("fusion", "distance")
class Distance(nn.Module):
    """Both projected vectors and their distance."""

    def __init__(self, image_dim, text_dim, dim=16):
        super().__init__()
        self.image_proj, self.text_proj = nn.Linear(image_dim, dim), nn.Linear(text_dim, dim)
        self.num_features = 3 * dim

    def forward(self, image, text):
        v, t = self.image_proj(image.pooled), self.text_proj(text.pooled)
        return Fused(pooled=torch.cat([v, t, (v - t).abs()], dim=1), image=v, text=t)


@register("head", "prototypes")
class Prototypes(nn.Module):
    """Minus the squared distance to one learned vector per class."""

    def __init__(self, in_features, num_classes):
        super().__init__()
        self.centers = nn.Parameter(torch.randn(num_classes, in_features))

    def forward(self, fused):
        return FusionOutput(logits=-torch.cdist(fused.pooled, self.centers).square())


@register("loss", "margin")
class Margin(Loss):
    """Multi-class hinge loss."""

    def objective(self, output, labels):
        return {"loss": F.multi_margin_loss(output.logits, labels)}
''',
    "metrics.py": '''
from mmfusion import register
from mmfusion.evaluation.metrics import Metric


@register("metric", "error_rate")
class ErrorRate(Metric):
    """Share of wrong rows."""

    title, meaning = "error rate", "share of wrong rows"
    higher_is_better = False

    def __call__(self, rows):
        return 1 - rows.mean(rows.rows.correct)
''',
}
MODEL = {"image_tower": "patches", "fusion": "distance", "head": "prototypes"}


def run(folder: Path, *arguments: str) -> None:
    """Run a command of mmfusion with ``my_pkg`` on the path."""
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "mmfusion", *arguments]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_parts_of_a_package_outside_the_tree_train_and_predict(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    package = tmp_path / "my_pkg"
    package.mkdir()
    for name, code in PACKAGE.items():
        (package / name).write_text(code)
    output, best, plugins = tmp_path / "run", tmp_path / "run" / "best", ("--plugins", "my_pkg")
    words = ["--data", str(toy), "--output", str(output), *plugins, "--model.name", "test_concat"]
    words += [word for part, name in MODEL.items() for word in (f"--model.{part}", name)]
    words += ["--train.loss", "margin", "--train.metric", "error_rate"]
    run(tmp_path, "train", *words, "--train.epochs", "2", "--train.batch_size", "8")

    config = json.loads((best / "config.json").read_text())
    assert {part: config["model"][part] for part in MODEL} == MODEL
    assert config["plugins"] == dict.fromkeys(MODEL, "my_pkg")
    metrics = json.loads((best / "metrics.json").read_text())
    assert metrics["error_rate"] == pytest.approx(1 - metrics["accuracy"])

    csv = tmp_path / "predictions.csv"
    predict = ["predict", "--model", f"local-dir:{best}", "--data", str(toy), "--output", str(csv)]
    assert cli.main(predict) == 2  # in this process the package was never imported
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "--plugins my_pkg" in error
    run(tmp_path, *predict, *plugins)
    predicted = pd.read_csv(csv)
    assert len(predicted) == 37
    np.testing.assert_allclose(predicted.filter(like="p_").sum(axis=1), 1, atol=1e-5)
