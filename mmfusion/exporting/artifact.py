"""The folder of an exported model: the program, processor and labels."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmfusion.artifacts.folder import read_config, without_ids, write_artifact
from mmfusion.artifacts.names import CONFIG, METRICS
from mmfusion.artifacts.traces import Trace, let_through, refuse_traces, traces_in
from mmfusion.data import DatasetConfig
from mmfusion.data.memory import DataSource
from mmfusion.exporting.inputs import input_names
from mmfusion.exporting.program import SUFFIXES, output_names, write_program
from mmfusion.exporting.quantizing import TYPES, Loss, loss_of, quantize_program
from mmfusion.files import replacing, sha256, sole_writer, write_json
from mmfusion.inference.contents import template_of
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.split import read_measured
from mmfusion.models import FusionModel
from mmfusion.names import check_choice


@dataclass(frozen=True)
class Exported:
    """Result of an export.

    Attributes:
        path: The folder, or the file if one was requested.
        difference: Largest difference between the written program and the model, before quantization.
        quantized: Cost of quantization; None without it.
    """

    path: Path
    difference: float
    quantized: Loss | None = None

    def summary(self) -> str:
        """Agreement with the model, output path, and how to use it."""
        batches = "over batches of several sizes, with missing modalities"
        lines = [f"largest difference from the model {self.difference:.1e}, {batches}"]
        lines += [f"{self.quantized}"] if self.quantized else []
        lines.append(f"written to {self.path}")
        if (self.path / f"model{SUFFIXES['onnx']}").is_file():
            lines.append(f"use it with mmfusion predict --model local-dir:{self.path} --data DATA")
        return "\n".join(lines)


@sole_writer
def export_model(
    model: str | os.PathLike[str] | Predictor,
    output: str | Path,
    *,
    format: str = "onnx",
    tolerance: float = 1e-4,
    force: bool = False,
    quantize: str | None = None,
    data: DataSource | None = None,
    split: str | None = None,
    dataset: DatasetConfig | None = None,
) -> Exported:
    """Export a saved model, and compare the written program with the model.

    Inputs are those of ``FusionModel.forward`` by name, ``image_present`` and ``text_present`` among them; outputs are
    ``logits`` and calibrated ``probabilities``, both (B, C). The number of samples, of tokens, and of slices or views
    is free; the image size is the processor's.

    The arguments are those of :class:`~mmfusion.exporting.config.ExportConfig`; ``model`` may be a predictor too, and
    ``data`` a table in memory.

    Raises:
        FileExistsError: The folder is not an earlier export.
        FileNotFoundError: The model does not exist.
        ValueError: Possible personal data in the model's texts without ``force``; an unknown format; an exported model
            or several models; a wrong file suffix; a program that differs by more than ``tolerance``; or
            ``quantize`` without ``data``, or for anything but the folder of an ONNX program. Nothing is written
            then, and existing files are kept.
        ImportError: ``onnx`` is requested, and its libraries are not installed (``pip install "mmfusion[onnx]"``).
    """
    output = Path(output).expanduser()
    check_choice("format", format, tuple(SUFFIXES))
    is_file = output.suffix in SUFFIXES.values()
    if is_file and output.suffix != SUFFIXES[format]:
        raise ValueError(f"{output.name} does not fit the format {format}; its files end in {SUFFIXES[format]}.")
    if not is_file:
        _refuse_other(output)
    if quantize is not None:
        check_choice("quantize", quantize, TYPES)
        if is_file or format != "onnx" or data is None:
            raise ValueError(
                "quantize needs the folder format of ONNX, which records the cost: give --data with labeled rows to "
                "measure it."
            )
    predictor = model if isinstance(model, Predictor) else Predictor.from_pretrained(model, device="cpu")
    network = predictor.network()
    if any(parameter.device.type != "cpu" for parameter in network.parameters()):
        raise ValueError(f"{predictor.name} is exported from the CPU; load it with device='cpu'.")
    processor = predictor.processor
    if quantize is not None and not predictor.task.one_class:
        raise ValueError(f"quantize measures accuracy, which needs one class per row, unlike {predictor.name}.")
    traces = _traces(predictor)
    refuse_traces(predictor.name, traces, force)
    how: dict[str, Any] = {"dataset": dataset or predictor.dataset, "template": template_of(predictor)}
    how |= {"labels": predictor.labels, "provenance": predictor.provenance}
    measured = read_measured(data, split, **how) if quantize is not None and data is not None else None
    traced: dict[str, Any] = {
        "calibration": predictor.calibration,
        "task": predictor.task,
        "format": format,
        "tolerance": tolerance,
    }
    traced |= {"image_size": processor.image_size, "max_length": processor.max_length}
    traced["features"] = predictor.familiarity is not None
    output.parent.mkdir(parents=True, exist_ok=True)
    if is_file:
        return Exported(output, write_program(network, output, **traced))
    # the metrics of a saved model apply to the exported one too
    metrics, loss = predictor.metrics, None
    with replacing(output) as partial:
        path = partial / f"model{SUFFIXES[format]}"
        difference = write_program(network, path, **traced)
        sizes = quantize_program(path) if measured else None
        processor.save_tokenizer(partial)
        if predictor.familiarity is not None:
            predictor.familiarity.write(partial)
        entry, card = _entry(network, path, format, difference), let_through(predictor.card, traces)
        entry["outputs"] = output_names(network, traced["features"])
        config = {**predictor.config(), "card": card, "export": entry}
        write_artifact(partial, config, metrics)
        if measured:
            loss = loss_of(predictor, partial, measured[1], split=measured[0], type=quantize, megabytes=sizes)
            entry["quantized"] = loss.entry()
            write_artifact(partial, config, metrics)
    return Exported(output, difference, loss)


def _traces(predictor: Predictor) -> list[Trace]:
    """Personal or machine data in the texts of a model as they will be written."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        predictor.processor.save_tokenizer(folder)
        write_json(folder / CONFIG, predictor.config())
        write_json(folder / METRICS, without_ids(predictor.metrics or {}))
        return traces_in(folder)


def _entry(model: FusionModel, path: Path, format: str, difference: float) -> dict[str, Any]:
    """Entry of ``config.json`` about the exported program."""
    entry: dict[str, Any] = {"format": format, "file": path.name, "sha256": sha256(path)}
    entry |= {"inputs": input_names(model), "image_layout": model.image_layout}
    return entry | {"roi_crop": getattr(model.image_tower, "crop", None), "difference": difference}


def _refuse_other(folder: Path) -> None:
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file; choose another output.")
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    config = read_config(folder) if (folder / CONFIG).is_file() else {}
    if "export" not in config:
        raise FileExistsError(f"{folder} is not empty and not an earlier export; choose another output.")
