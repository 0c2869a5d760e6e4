"""An exported model as a folder: the program, and all that makes rows its inputs and names its outputs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfusion.artifacts.card import model_card
from mmfusion.artifacts.folder import CARD, CONFIG, METRICS
from mmfusion.data import Processor
from mmfusion.exporting.inputs import input_names
from mmfusion.exporting.program import OUTPUTS, SUFFIXES, write_program
from mmfusion.files import recover, replacing, sha256, write_json
from mmfusion.models import FusionModel, load_model, read_config, resolve_artifact


@dataclass(frozen=True)
class Exported:
    """What an export wrote.

    Attributes:
        path: the folder, or the file where a file was asked for.
        difference: largest difference of a probability, or of a logit over the largest one, between the written program
            and the model.
    """

    path: Path
    difference: float


def export_model(name: str, output: str | Path, *, format: str = "onnx", tolerance: float = 1e-4) -> Exported:
    """Export a saved model, and compare what was written with the model.

    Inputs are those of ``FusionModel.forward`` by name, ``image_present`` and ``text_present`` among them; outputs are
    ``logits`` and ``probabilities``, at the model's temperature, both (B, C). The number of samples, of tokens, and of
    slices or views is free; the size of the pictures is the processor's.

    Args:
        name: ``local-dir:FOLDER``, ``hf-hub:org/name@revision`` or ``arch.tag``.
        output: folder to make, for :meth:`Predictor.from_pretrained <mmfusion.Predictor.from_pretrained>`: the program,
            ``config.json`` with processor, labels and calibration, the tokenizer's files, metrics and model card. Or a
            file, ``.onnx`` or ``.pt2``, for the program alone.
        format: ``onnx``, or ``torch-export`` for :func:`torch.export.load`.
        tolerance: largest difference that is accepted.

    Raises:
        FileExistsError: the folder holds something else than an export.
        FileNotFoundError: there is no such model.
        ValueError: an unknown format, a file of another suffix, or a program that differs by more than ``tolerance``.
            Nothing is written then, and what was there stays.
        ImportError: ``onnx`` is asked for, and its libraries are not installed (``pip install "mmfusion[onnx]"``).
    """
    output = Path(output).expanduser()
    if format not in SUFFIXES:
        raise ValueError(f"format={format!r} is not one of {', '.join(map(repr, SUFFIXES))}.")
    is_file = output.suffix in SUFFIXES.values()
    if is_file and output.suffix != SUFFIXES[format]:
        raise ValueError(f"{output.name} is no name for the format {format}; its files end in {SUFFIXES[format]}.")
    if not is_file:
        _refuse_other(output)
    folder = resolve_artifact(name)
    model, processor = load_model(folder), Processor.from_pretrained(folder)
    traced: dict[str, Any] = {
        "format": format,
        "image_size": processor.image_size,
        "max_length": processor.max_length,
        "tolerance": tolerance,
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    if is_file:
        return Exported(output, write_program(model, output, **traced))
    try:
        with replacing(output) as partial:
            path = partial / f"model{SUFFIXES[format]}"
            difference = write_program(model, path, **traced)
            config = read_config(folder) | {"export": _entry(model, path, format, difference)}
            config.pop("weights_sha256", None)
            write_json(partial / CONFIG, config)
            processor.save_pretrained(partial)
            metrics = _copied_metrics(folder, partial)
            (partial / CARD).write_text(model_card(config, metrics), encoding="utf-8")
    finally:
        recover(output)  # an export that failed leaves nothing behind
    return Exported(output, difference)


def _entry(model: FusionModel, path: Path, format: str, difference: float) -> dict[str, Any]:
    """What ``config.json`` says about the program."""
    return {
        "format": format,
        "file": path.name,
        "sha256": sha256(path),
        "inputs": input_names(model),
        "outputs": list(OUTPUTS),
        "image_layout": model.image_layout,
        "roi_crop": getattr(model.image_tower, "crop", None),
        "difference": difference,
    }


def _copied_metrics(folder: Path, target: Path) -> dict[str, Any] | None:
    """The model's figures, which hold for the program too."""
    path = folder / METRICS
    if not path.is_file():
        return None
    shutil.copyfile(path, target / METRICS)
    return json.loads(path.read_text(encoding="utf-8"))


def _refuse_other(folder: Path) -> None:
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file; choose another output.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    config = read_config(folder) if (folder / CONFIG).is_file() else {}
    if "export" not in config:
        raise FileExistsError(f"{folder} is not empty and no earlier export; choose another output.")
