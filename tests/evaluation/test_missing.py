from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

from mmfusion.data import CaseTable, Processor
from mmfusion.evaluation.missing import missing_modality
from mmfusion.inference.predictor import Predictor
from mmfusion.outputs import FusionOutput


class Knows(nn.Module):
    """Predicts class 1 in proportion to the present views."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, view_mask=None, **batch) -> FusionOutput:
        present = view_mask.float() @ torch.tensor([1.0, 2.0])
        return FusionOutput(logits=torch.stack([torch.zeros_like(present), present], dim=1))


@pytest.fixture
def cases(tmp_path) -> CaseTable:
    for name in "ab":
        Image.radial_gradient("L").save(tmp_path / f"{name}.png")
    images = [("a.png", "b.png"), ("a.png", None), ("b.png", "a.png"), None]
    columns = {"id": list("wxyz"), "image": images, "label": ["yes"] * 4, "text": None, "group": None, "split": "test"}
    frame = pd.DataFrame(columns, index=pd.RangeIndex(1, 5), dtype=object)
    return CaseTable(frame.where(frame.notna(), None), Path(tmp_path), known_labels=("no", "yes"), layout="views")


def test_each_view_alone_on_the_rows_that_have_all(cases):
    processor = Processor(["no", "yes"], image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    found = missing_modality(Predictor(Knows(), processor), cases, bootstrap={"replicates": 5})
    assert [(row.shown, row.n) for row in found] == [("everything", 2), ("view 1 only", 2), ("view 2 only", 2)]
    for row, sureness in zip(found, (3.0, 1.0, 2.0), strict=True):
        expected = -torch.tensor([0.0, sureness]).log_softmax(0)[1].item()
        assert row.figures["nll"].value == pytest.approx(expected, abs=1e-6)


def test_one_modality_has_nothing_to_take_away(cases):
    processor = Processor(["no", "yes"], image_size=8, mean=(0.5,) * 3, std=(0.5,) * 3)
    single = CaseTable(cases.frame.assign(image="a.png"), cases.image_root, known_labels=("no", "yes"))
    assert missing_modality(Predictor(Knows(), processor), single) == []
