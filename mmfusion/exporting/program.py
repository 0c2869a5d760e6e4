"""Tracing of a model into a program, and comparison of both on batches of many shapes."""

import importlib.util
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.exporting.inputs import free_sizes, random_inputs
from mmfusion.files import written_whole
from mmfusion.inference.familiarity import tower_features
from mmfusion.inference.onnx_model import FEATURES, open_session, run_session
from mmfusion.models import FusionModel
from mmfusion.names import check_choice
from mmfusion.task import Task, task_of

#: format -> suffix of its file.
SUFFIXES = {"onnx": ".onnx", "torch-export": ".pt2"}

#: names of a program's outputs.
OUTPUTS = ("logits", "probabilities")

#: sizes of the batches for the comparison: samples, tokens of the longest text, slices or views.
SHAPES = ((1, 1, 1), (2, 7, 2), (3, 24, 3), (5, 64, 5), (8, 12, 2))


def output_names(model: FusionModel, features: bool) -> list[str]:
    """Names of a program's outputs, with or without the towers' features."""
    return [*OUTPUTS, *(f"{modality}{FEATURES}" for modality in model.towers if features)]


Runner = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


class Program(nn.Module):
    """Exported module: the model's inputs by keyword -> logits and calibrated probabilities, both (B, C) float32.

    The numbers of ``calibration`` become constants of the program; None means uncalibrated probabilities. For other
    tasks the outputs are the raw outputs (B, W) and the answers (B, A). With ``features``, the pooled features (B, D)
    of each tower follow, from which familiarity is computed.
    """

    def __init__(
        self,
        model: FusionModel,
        calibration: Mapping[str, Any] | None = None,
        task: Task | None = None,
        *,
        features: bool = False,
    ) -> None:
        super().__init__()
        self.model, self.calibration, self.task = model, calibration, task or task_of(model)
        self.modalities = list(model.towers) if features else []

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        with tower_features(self.model) as seen:
            raw = self.task.raw(self.model(**inputs)).float()
        pooled = (seen()[modality].pooled.float() for modality in self.modalities)
        return raw, self.task.spoken(raw, self.calibration), *pooled


def write_program(
    model: FusionModel,
    path: Path,
    *,
    calibration: Mapping[str, Any] | None = None,
    task: Task | None = None,
    format: str = "onnx",
    image_size: int | None = None,
    max_length: int | None = None,
    tolerance: float = 1e-4,
    features: bool = False,
) -> float:
    """Trace a model, write the program, read it again and compare it with the model.

    The numbers of samples, of tokens, and of slices or views are dynamic. The file is written under a temporary name
    and renamed once it passes the comparison.

    Args:
        model: Model on the CPU; it is set to evaluation mode.
        path: File to write; an existing one is replaced.
        calibration: The model's calibration, which becomes part of the program; None means none.
        task: The model's task with its labels and targets; None uses the model's own.
        format: As in :class:`~mmfusion.exporting.config.ExportConfig`, like ``tolerance``.
        image_size: Side of the images in pixels, which is fixed in the program; None only for models without images.
        max_length: Longest text in the comparison, in tokens; None uses the text encoder's maximum.
        features: Whether the program also returns the pooled features of the towers.

    Returns:
        The largest difference over batches of the sizes :data:`SHAPES`, including missing modalities.

    Raises:
        ValueError: An unknown format, a model that the format cannot express, or a program that differs by more than
            ``tolerance``.
        ImportError: ``onnx`` is requested, and its libraries are not installed (``pip install "mmfusion[onnx]"``).
    """
    check_choice("format", format, tuple(SUFFIXES))
    for name in ("onnx", "onnxruntime", "onnxscript") if format == "onnx" else ():
        if importlib.util.find_spec(name) is None:
            raise ImportError(f'Export to ONNX needs {name}; pip install "mmfusion[onnx]".')
    if model.image_tower is not None and image_size is None:
        raise ValueError("A model that reads images is exported for one image_size, in pixels.")
    program = Program(model.eval(), calibration, task, features=features).eval()
    with written_whole(path) as unfinished:
        with _quiet(), torch.no_grad():
            run = _WRITERS[format](program, image_size, unfinished)
        differences = [_difference(program, run, inputs) for inputs in _batches(model, image_size, max_length)]
        difference = float(torch.stack(differences).max())  # unlike Python's max, it propagates NaN
        if not difference <= tolerance:  # also true for NaN
            raise ValueError(
                f"The exported program differs from the model by {difference:.2g}, more than {tolerance:g}; nothing is "
                "written. Report it, or accept it with a larger tolerance."
            )
    return difference


def _example(program: Program, image_size: int | None) -> dict[str, Any]:
    """Keywords of an exporter: inputs to trace with, and their dynamic dimensions."""
    # no size is 1 and all sizes differ, because exporters specialize on a size of 1 and on equal sizes
    inputs = random_inputs(program.model, image_size=image_size, rows=4, length=9, images=3)
    return {"kwargs": inputs, "dynamic_shapes": {"inputs": free_sizes(program.model)}}


def _write_onnx(program: Program, image_size: int | None, path: Path) -> Runner:
    # torch caches how it called an LSTM; without a reset, a second export in the process would fix the number of slices
    torch.ops.aten.lstm.input._dispatch_cache.clear()
    example, names = _example(program, image_size), output_names(program.model, bool(program.modalities))
    try:
        found = torch.onnx.export(program, **example, output_names=names, dynamo=True, verbose=False)
    except torch.onnx.errors.OnnxExporterError as error:
        raise _cannot("onnx", error) from error
    assert found is not None
    try:
        found.save(path, external_data=False)
    except Exception as error:  # e.g. ONNX files are limited to 2 GB
        raise _cannot("onnx", error) from error
    session = open_session(path, device="cpu")
    return lambda inputs: run_session(session, inputs)


def _write_torch(program: Program, image_size: int | None, path: Path) -> Runner:
    from torch.fx.experimental import _config as size_config

    try:
        # like torch.onnx, so that sizes of 1 are allowed, and two views, of which one is the query
        with size_config.patch(backed_size_oblivious=True):  # type: ignore[attr-defined]
            traced = torch.export.export(
                program, args=(), **_example(program, image_size), prefer_deferred_runtime_asserts_over_guards=True
            )
    except (torch._dynamo.exc.UserError, RuntimeError) as error:
        raise _cannot("torch-export", error) from error
    torch.export.save(traced, path)
    module = torch.export.load(path).module()
    return lambda inputs: module(**inputs)


_WRITERS: dict[str, Callable[[Program, int | None, Path], Runner]] = {"onnx": _write_onnx, "torch-export": _write_torch}


def _cannot(format: str, error: Exception) -> ValueError:
    """Shorten an exporter's long error to one line: the innermost cause."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    lines = [line.strip(" -") for line in str(cause).splitlines() if line.strip()]
    reason = next((line for line in lines if line.startswith("You marked")), lines[0] if lines else "")
    return ValueError(f"torch cannot write this model as {format} ({type(cause).__name__}: {reason})")


def _batches(model: FusionModel, image_size: int | None, max_length: int | None) -> Iterator[dict[str, Tensor]]:
    """Batches of other sizes than the traced one; the last ones each lack one modality."""
    limits = [max_length, *(tower.max_length for tower in model.towers.values())]
    longest = min((n for n in limits if n is not None), default=10**6)
    make = partial(random_inputs, model, image_size=image_size)
    for seed, (rows, length, images) in enumerate(SHAPES, start=1):
        yield make(rows=rows, length=min(length, longest), images=images, seed=seed)
    for modality in model.towers:
        inputs = make(rows=2, length=min(5, longest), images=2)
        yield inputs | {f"{modality}_present": torch.zeros(2, dtype=torch.bool)}


@torch.no_grad()
def _difference(program: Program, run: Runner, inputs: dict[str, Tensor]) -> Tensor:
    """Largest difference of a probability, or of a logit relative to the batch's largest (at least 1).

    In float32, a logit of 15 has a rounding error of about 1e-5 in the model itself; probabilities are below 1.
    """
    expected = program(**inputs)
    try:
        found = run(inputs)
    except Exception as error:  # error types differ between runtimes; one cause is a size that tracing made constant
        shapes = ", ".join(f"{name} {tuple(value.shape)}" for name, value in inputs.items())
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ValueError(f"The exported program does not accept {shapes} ({reason}).") from error
    pairs = zip(expected, found, strict=True)
    return torch.stack([(a - b).abs().max() / a.abs().max().clamp(min=1) for a, b in pairs]).max()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporters' warnings about their internals, which users cannot influence."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
