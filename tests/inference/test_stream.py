from __future__ import annotations

import csv
import math

import numpy as np
import pytest
import torch
from torch import nn

from mmfusion.inference.predictions_csv import MEASURED, prediction_writer
from mmfusion.inference.stream import Prediction, predict_rows
from mmfusion.outputs import FusionOutput
from mmfusion.task import task_named

TASK = task_named("multiclass", ["a", "b"])


class Rows:
    """Row i holds the value i; rows 1 and 5 cannot be read."""

    def __init__(self, bad=(1, 5)) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 7

    def __getitem__(self, index: int):
        if index in self.bad:
            raise OSError(f"row {index}:\n damaged")
        if index >= len(self):
            raise IndexError(index)
        return {"pixel_values": torch.full((3, 4, 4), float(index)), "labels": 0}


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.batches: list[int] = []

    def forward(self, pixel_values) -> FusionOutput:
        assert not self.training and torch.is_inference_mode_enabled()
        self.batches.append(len(pixel_values))
        value = pixel_values.mean((1, 2, 3)) * self.scale
        return FusionOutput(logits=torch.stack([value, torch.zeros_like(value)], 1))


def collate(items):
    return {"pixel_values": torch.stack([i["pixel_values"] for i in items]), "labels": torch.zeros(len(items))}


@pytest.mark.parametrize("tta", [False, True])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_every_row_in_order_with_its_error(batch_size, tta):
    parts = list(predict_rows(Model(), Rows(), collate, task=TASK, batch_size=batch_size, tta=tta))
    assert [p.start for p in parts] == list(range(0, 7, batch_size))
    probabilities = np.concatenate([p.probabilities for p in parts])
    errors = [e for p in parts for e in p.errors]
    assert [i for i, e in enumerate(errors) if e] == [1, 5] and errors[1] == "row 1: damaged"
    for i in range(7):
        if i in (1, 5):
            assert np.isnan(probabilities[i]).all()
        else:
            assert probabilities[i, 0] == pytest.approx(1 / (1 + math.exp(-i)), rel=1e-6)


def test_what_router_and_gates_gave_each_row():
    class Routed(Model):
        def forward(self, pixel_values) -> FusionOutput:
            output = super().forward(pixel_values)
            output.router_probs = output.logits.sigmoid()
            output.gates = {"gate": output.logits[:, :1]}
            return output

    first, second = predict_rows(Routed(), Rows(), collate, task=TASK, batch_size=4)
    assert first.shares["gate"][:, 0].tolist() == pytest.approx([0, math.nan, 2, 3], nan_ok=True)
    assert second.shares["gate"][:, 0].tolist() == pytest.approx([4, math.nan, 6], nan_ok=True)
    assert second.shares["experts"][0].tolist() == pytest.approx([1 / (1 + math.exp(-4)), 0.5])
    (none,) = predict_rows(Routed(), Rows(bad=range(7)), collate, task=TASK)
    assert none.shares == {} and len(none.errors) == 7


def test_output_that_is_not_finite_is_an_error_of_its_row():
    model = Model()
    model.scale.data.fill_(math.inf)
    (part,) = predict_rows(model, Rows(), collate, task=TASK)
    assert (
        part.errors[0] == part.errors[2] == "The model's output is not finite." and part.errors[1] == "row 1: damaged"
    )


def test_batch_size_is_checked():
    with pytest.raises(ValueError, match="batch_size=0"):
        next(predict_rows(Model(), Rows(), collate, task=TASK, batch_size=0))


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_csv(tmp_path):
    path = tmp_path / "new" / "predictions.csv"
    logarithms = np.log(np.array([[0.25, 0.75], [np.nan, np.nan]], dtype=np.float32))
    predicted = Prediction(0, logarithms, [None, "no, image"], ["image+text", ""])
    with prediction_writer(path, ["a", "b"]) as write:
        write(["x", "y"], predicted)
        assert not path.exists()
    assert read(path) == [
        ["id", "label", "probability", "p_a", "p_b", "inputs", "error"],
        ["x", "b", "0.75", "0.25", "0.75", "image+text", ""],
        ["y", "", "", "", "", "", "no, image"],
    ]
    with prediction_writer(path, ["a", "b"], known=MEASURED) as write:
        write(["x", "y"], predicted, {"true_label": ["a", ""], "group": ["p", ""]})
    head = [["id", "true_label", "group", "label"], ["x", "a", "p", "b"], ["y", "", "", ""]]
    assert [row[:4] for row in read(path)] == head


def test_an_interrupted_csv_leaves_the_old_one(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text("old")
    with pytest.raises(RuntimeError), prediction_writer(path, ["a", "b"]):
        raise RuntimeError
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["p.csv"]
