from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mmfusion
from mmfusion.data import DatasetConfig, MultimodalDataset, Processor, read_cases
from mmfusion.evaluation.measure import measure
from mmfusion.evaluation.shares import mean_shares
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.tta import VIEWS

LABELS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def model() -> mmfusion.FusionModel:
    torch.manual_seed(0)
    return mmfusion.create_model(
        "global_local_lite0",
        num_classes=3,
        image_encoder="test_resnet",
        text_encoder=None,
        head="moe",
        head_args={"num_experts": 3},
    ).eval()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images of the classes a and b, one without a label and one unreadable; class c has none."""
    root = tmp_path_factory.mktemp("use")
    rng = np.random.default_rng(0)
    for i in range(7):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(root / f"{i}.png")
    (root / "4.png").write_bytes(b"no picture")
    rows = [f"{i}.png,{label}" for i, label in enumerate(["a", "b", "a", "", "b", "a", "b"])]
    (root / "cases.csv").write_text("image,label\n" + "\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("tta", [False, True])
def test_the_use_of_experts_and_gates_is_that_of_the_forward_passes(model, root, tmp_path, tta) -> None:
    processor = Processor(labels=LABELS, image_size=32)
    cases = read_cases(root, DatasetConfig(), processor_labels=LABELS, require_labels=False)
    with torch.no_grad():
        model.image_tower.weight.fill_(0.7)
        model.head.router.gate.weight.normal_()
    how = {"on_bad_row": "skip", "batch_size": 2, "tta": tta}
    metrics = measure(Predictor(model, processor), cases, output=tmp_path, **how).to_dict()

    rows = MultimodalDataset(cases, processor)
    pixels = torch.stack([rows[i]["pixel_values"] for i in (0, 1, 2, 5, 6)])  # labeled and readable
    with torch.no_grad():
        passes = [model(view(pixels)) for view in (VIEWS.values() if tta else [torch.clone])]
    experts = torch.stack([output.router_probs for output in passes]).mean(0)
    of_a, of_b = experts[[0, 2, 3]], experts[[1, 4]]
    use = metrics["expert_use"]
    assert use["mean"] == pytest.approx(experts.mean(0).tolist(), abs=1e-6) and sum(use["mean"]) == pytest.approx(1)
    assert list(use["per_class"]) == ["a", "b"], "a class without rows has no mean"
    assert use["per_class"]["a"] == pytest.approx(of_a.mean(0).tolist(), abs=1e-6)
    assert use["per_class"]["b"] == pytest.approx(of_b.mean(0).tolist(), abs=1e-6)
    assert (of_a.mean(0) - of_b.mean(0)).abs().max() > 1e-3, "the classes can be told apart"
    share = pytest.approx([1 / (1 + np.exp(-0.7))], abs=1e-6)
    assert metrics["gates"] == {"global": {"mean": share, "per_class": {"a": share, "b": share}}}
    assert json.loads((tmp_path / "metrics.json").read_text())["expert_use"] == use


def test_a_model_with_neither_tells_nothing() -> None:
    assert mean_shares({}, {"a": np.array([True, False])}) == {}
