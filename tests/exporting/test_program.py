from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from zoo import batch, registered_config, shrunk

import mmfusion
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.exporting import program
from mmfusion.exporting.inputs import random_inputs
from mmfusion.exporting.program import write_program
from mmfusion.inference import OnnxModel
from mmfusion.outputs import Features

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZE = 48

CALIBRATION = {"temperature": 1.7, "fitted_on": "val", "n": 60}

#: one model for each difficulty of tracing: a recurrence over any number of slices; views, some of them
#: absent; a scan; a region and its default; columns. (An image with a text is exported by the tests of the folder.)
MECHANISMS = ("bilstm_lite0", "multiview_lite0", "ssm_lite0", "lesion_context_lite0", "table_ft_transformer")

#: sizes that differ from those of tracing and of the command's own check.
ROWS, LENGTH = 6, 15


def one_of_each_kind() -> list[object]:
    """One model for each kind of tower, stem and mechanism; other parts are traced alone."""
    kinds: dict[tuple[object, ...], str] = {}
    for name in (*MECHANISMS, "mibf_v2_lite0", "dual_expert_lite0", *mmfusion.list_models()):
        config = registered_config(name)
        towers = (config["image_encoder"] is None, config["text_encoder"] is None, config.get("table_encoder"))
        kinds.setdefault((*towers, config.get("image_tower"), config.get("stem")), name)
    names = sorted({*kinds.values(), *MECHANISMS})
    return [pytest.param(name, marks=[pytest.mark.slow] * (name not in MECHANISMS)) for name in names]


def other_inputs(model: mmfusion.FusionModel) -> dict[str, torch.Tensor]:
    """Inputs of other sizes, with a missing image and a missing text."""
    inputs = batch(model, rows=ROWS, length=LENGTH, size=SIZE, seed=5)
    if model.image_tower is not None:
        inputs["image_present"] = torch.arange(ROWS) != 4
    if model.text_tower is not None:
        inputs["text_present"] = torch.arange(ROWS) != 5
    if model.table_tower is not None:
        inputs["table_present"] = torch.arange(ROWS) != 3
    return inputs


#: models with optional inputs of their image tower.
OPTIONAL_INPUTS = ("lesion_context_lite0", "multiview_lite0", "bilstm_lite0")


def check_numbers(path: Path, model: mmfusion.FusionModel, temperature: float) -> None:
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    inputs = other_inputs(model)
    fed = {node.name: inputs[node.name].numpy() for node in session.get_inputs()}
    assert fed.keys() == inputs.keys()
    logits, probabilities = session.run(["logits", "probabilities"], fed)
    with torch.inference_mode():
        expected = model(**inputs).logits
    np.testing.assert_allclose(logits, expected.numpy(), rtol=0, atol=1e-4)
    np.testing.assert_allclose(probabilities, (expected / temperature).softmax(-1).numpy(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in one_of_each_kind() if n.values[0] not in OPTIONAL_INPUTS])
def test_onnx_gives_the_model_s_numbers_at_other_sizes(name: str, tmp_path: Path) -> None:
    model = shrunk(name).eval()
    path = tmp_path / "model.onnx"
    assert write_program(model, path, calibration=CALIBRATION, image_size=SIZE) <= 1e-4
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    check_numbers(path, model, 1.7)


#: parts that only the package's exporter can write: traced as a whole model, in MECHANISMS.
TRACED_WHOLE = ("bilstm", "ssm")
ROWS_OF_ANY_NUMBER, ANY_LENGTH = torch.export.Dim("rows", max=64), torch.export.Dim("length", max=64)


def check_part(part: torch.nn.Module, inputs: tuple, others: tuple, shapes: tuple, path: Path) -> None:
    """A traced program has the part's results on inputs of other sizes."""
    torch.onnx.export(part, inputs, path, dynamic_shapes=shapes, dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    fed = {node.name: x.numpy() for node, x in zip(session.get_inputs(), others, strict=True)}
    with torch.no_grad():
        np.testing.assert_allclose(session.run(None, fed)[0], part(*others).numpy(), rtol=0, atol=1e-5)


class Joined(torch.nn.Module):
    """A fusion block and a head on tokens of both sides, without towers."""

    def __init__(self, fusion: str, head: str) -> None:
        super().__init__()
        self.fusion = mmfusion.create_fusion(fusion, image_dim=8, text_dim=8, dim=8)
        self.head = mmfusion.create_head(head, in_features=self.fusion.num_features, num_classes=3)

    def forward(self, image: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        sides = [
            Features(tokens=x, pooled=x[:, 0], mask=m, levels=(x[:, 0], x[:, 1], x[:, 2]))
            for x, m in ((image, None), (text, mask))
        ]
        return self.head(self.fusion(*sides)).logits


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fusion", "head"),
    [(name, "mlp") for name in mmfusion.list_components("fusion") if name not in TRACED_WHOLE]
    + [("concat", name) for name in mmfusion.list_components("head") if name not in ("mlp", "dual_expert")],
)
def test_every_block_and_head_in_onnx_at_other_sizes(fusion: str, head: str, tmp_path: Path) -> None:
    joined = Joined(fusion, head).eval()
    shapes = ({0: ROWS_OF_ANY_NUMBER}, {0: ROWS_OF_ANY_NUMBER, 1: ANY_LENGTH}, {0: ROWS_OF_ANY_NUMBER, 1: ANY_LENGTH})
    inputs = (torch.randn(4, 5, 8), torch.randn(4, 9, 8), torch.arange(9) < torch.tensor([[9], [3], [5], [7]]))
    others = (torch.randn(3, 5, 8), torch.randn(3, 7, 8), torch.arange(7) < torch.tensor([[3], [7], [5]]))
    check_part(joined, inputs, others, shapes, tmp_path / "block.onnx")


class Pooled(torch.nn.Module):
    """An aggregator alone."""

    def __init__(self, name: str) -> None:
        super().__init__()
        size = {} if name == "mean" else {"hidden_size": 16}
        self.aggregator = mmfusion.create_aggregator(name, in_features=8, **size)

    def forward(self, slices: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.aggregator(slices, mask).pooled


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in mmfusion.list_components("aggregator") if name not in TRACED_WHOLE])
def test_every_aggregator_in_onnx_at_other_sizes(name: str, tmp_path: Path) -> None:
    inputs = (torch.randn(4, 5, 8), torch.arange(5) < torch.tensor([[5], [3], [1], [4]]))
    others = (torch.randn(3, 7, 8), torch.arange(7) < torch.tensor([[3], [7], [5]]))
    shapes = ({0: ROWS_OF_ANY_NUMBER, 1: ANY_LENGTH},) * 2
    check_part(Pooled(name).eval(), inputs, others, shapes, tmp_path / "aggregator.onnx")


@pytest.mark.parametrize("name", OPTIONAL_INPUTS)
def test_onnx_with_and_without_inputs_that_the_tower_may_do_without(name: str, tmp_path: Path) -> None:
    model = shrunk(name).eval()
    processor = Processor(["a", "b", "c"], image_size=SIZE, tokenizer=fit_wordpiece(["red"], 64))
    predictor = mmfusion.Predictor(model, processor, calibration=CALIBRATION)
    assert mmfusion.export_model(predictor, tmp_path / "onnx").difference <= 1e-4
    check_numbers(tmp_path / "onnx" / "model.onnx", model, 1.7)

    onnx_model = OnnxModel(tmp_path / "onnx", "cpu")
    inputs = batch(model, rows=3, size=SIZE)
    for left_out in ("roi_values", "slice_mask", "view_mask"):
        inputs.pop(left_out, None)
    with torch.inference_mode():
        torch.testing.assert_close(onnx_model(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-4)
        if inputs["pixel_values"].ndim == 5:  # one slice, one view
            inputs["pixel_values"] = inputs["pixel_values"][:, 0]
            torch.testing.assert_close(onnx_model(**inputs).logits, model(**inputs).logits, rtol=0, atol=1e-4)


def test_columns_beside_image_and_text(tmp_path: Path) -> None:
    """Missing cells are NaN in the program, too; a row without a known cell has no columns."""
    model = shrunk("test_concat", table_encoder="table_mlp").eval()
    path = tmp_path / "model.onnx"
    assert write_program(model, path, calibration=CALIBRATION, image_size=SIZE) <= 1e-4
    check_numbers(path, model, 1.7)
    values = other_inputs(model)["numeric_values"]
    assert values.isnan().any() and not values.isnan().all()


TORCH_EXPORTED = [pytest.param(n, marks=pytest.mark.slow) for n in MECHANISMS if n != "bilstm_lite0"]


@pytest.mark.parametrize("name", ["test_concat", *TORCH_EXPORTED])
def test_torch_export_gives_the_model_s_numbers_at_other_sizes(name: str, tmp_path: Path) -> None:
    model = shrunk(name).eval()
    path = tmp_path / "model.pt2"
    assert write_program(model, path, format="torch-export", image_size=SIZE) <= 1e-4
    inputs = other_inputs(model)
    found, _ = torch.export.load(path).module()(**inputs)
    with torch.inference_mode():
        torch.testing.assert_close(found, model(**inputs).logits, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_what_torch_export_cannot_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="torch cannot write this model as torch-export") as raised:
        write_program(shrunk("bilstm_lite0"), tmp_path / "model.pt2", format="torch-export", image_size=SIZE)
    assert "\n" not in str(raised.value) and "images" in str(raised.value)
    assert not list(tmp_path.iterdir())


def fake_writer(offset: float):
    """A writer whose program is the model, plus a small error on batches of three."""

    def write(traced: program.Program, image_size: int | None, path: Path):
        path.write_text("new")
        return lambda inputs: tuple(x + offset if len(x) == 3 else x for x in traced(**inputs))

    return write


def test_a_program_that_differs_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    path.write_text("old")
    monkeypatch.setitem(program._WRITERS, "onnx", fake_writer(3e-4))
    with pytest.raises(ValueError, match=r"differs from the model by 0.0003, more than 0.0001; nothing is written"):
        write_program(shrunk("test_text"), path)
    assert path.read_text() == "old" and [file.name for file in tmp_path.iterdir()] == ["model.onnx"]
    assert write_program(shrunk("test_text"), path, tolerance=1e-3) == pytest.approx(3e-4, rel=1e-2)
    assert path.read_text() == "new"
    monkeypatch.setitem(program._WRITERS, "onnx", fake_writer(float("nan")))
    with pytest.raises(ValueError, match="differs from the model by nan"):
        write_program(shrunk("test_text"), path)


def test_what_a_program_does_not_take_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(traced: program.Program, image_size: int | None, path: Path):
        def run(inputs):
            raise RuntimeError("Got: 1 Expected: 4\nmore")

        return run

    monkeypatch.setitem(program._WRITERS, "onnx", write)
    with pytest.raises(ValueError, match=r"does not accept input_ids \(1, 1\).*Got: 1 Expected: 4\)"):
        write_program(shrunk("test_text"), tmp_path / "model.onnx")


def test_bad_arguments(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'onnx', 'torch-export'"):
        write_program(shrunk("test_text"), tmp_path / "m", format="tflite")
    with pytest.raises(ValueError, match="image_size"):
        write_program(shrunk("test_image"), tmp_path / "m")


def test_inputs_lack_what_may_be_missing() -> None:
    inputs = random_inputs(shrunk("bilstm_lite0"), image_size=8, rows=5, length=6, images=3)
    assert inputs["image_present"].tolist() == [True, False, True, True, True]
    assert inputs["text_present"].tolist() == [True, True, False, True, True]
    assert inputs["slice_mask"].tolist() == [[1, 1, 1], [0, 0, 0], [0, 1, 1], [1, 1, 0], [1, 1, 1]]
    assert inputs["attention_mask"].sum(dim=1).tolist() == [6, 5, 0, 3, 2]
    assert inputs["pixel_values"].shape == (5, 3, 3, 8, 8) and not inputs["pixel_values"][1].any()
    views = random_inputs(shrunk("multiview_lite0"), image_size=8, rows=2, length=6, images=1)
    assert views["view_mask"].shape == (2, 2), "a tower of views compares two"
