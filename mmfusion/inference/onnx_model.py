"""Exported models on ONNX Runtime, with the interface of the original model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.artifacts.folder import read_config
from mmfusion.artifacts.integrity import check_files, digest
from mmfusion.artifacts.names import CONFIG
from mmfusion.models.fitting import check_vocabulary
from mmfusion.names import one_line
from mmfusion.outputs import Features, FusionOutput
from mmfusion.task import DEFAULT, task_named

#: Type of a torch device -> ONNX Runtime execution provider.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

#: Suffix of outputs with the pooled features of a modality.
FEATURES = "_features"

#: Kind of a tower whose defaults complete a batch, and its modality.
TOWERS = (("image_tower", "image"), ("text_tower", "text"))

#: Inputs without a default -> their modality.
NEEDED = {"pixel_values": "image", "input_ids": "text", "numeric_values": "table", "category_ids": "table"}


def open_session(path: Path, device: str | torch.device | None = None) -> Any:
    """Open an inference session with torch's number of threads on ``cpu`` or ``cuda``.

    Without a device, the GPU is used if the installed ONNX Runtime supports it.

    Raises:
        ImportError: ONNX Runtime is not installed.
        ValueError: The file is damaged, or the installed ONNX Runtime does not support the device.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ImportError('An ONNX model needs onnxruntime: pip install "mmfusion[onnx]".') from None
    available = onnxruntime.get_available_providers()
    kinds = [torch.device(device).type] if device is not None else ["cuda", "cpu"]
    providers = [PROVIDERS[kind] for kind in kinds if PROVIDERS.get(kind) in available]
    if not providers:
        usable = ", ".join(kind for kind, provider in PROVIDERS.items() if provider in available)
        raise ValueError(f"The installed onnxruntime has no device {str(device)!r}; available: {usable}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(path, sess_options=options, providers=providers)
    except Exception as error:  # ONNX Runtime raises exceptions of many types
        raise ValueError(
            f"{path} is damaged or incompatible with this onnxruntime ({one_line(error)}); export it again."
        ) from None


def run_session(session: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """Outputs of the session as CPU tensors for inputs by name; unknown inputs are ignored."""
    fed = {node.name: np.ascontiguousarray(inputs[node.name].cpu().numpy()) for node in session.get_inputs()}
    try:
        outputs = session.run(None, fed)
    except Exception as error:  # as above
        raise ValueError(
            f"The exported model does not accept these inputs ({one_line(error)}); export the model again."
        ) from None
    return tuple(torch.from_numpy(array) for array in outputs)


class OnnxModel(nn.Module):
    """``model(**batch) -> FusionOutput`` with logits from ONNX Runtime; cannot be trained or explained.

    Args:
        folder: Folder written by :func:`~mmfusion.exporting.export_model`.
        device: As in :func:`open_session`.

    It has the ``architecture``, ``num_classes``, ``task`` and ``image_layout`` of the exported model.

    Raises:
        FileNotFoundError: The folder has no exported model, or its file is missing.
        ValueError: The format is not ONNX, a file is damaged, or the device does not exist.
        ImportError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path, device: str | torch.device | None = None) -> None:
        super().__init__()
        config = read_config(folder)
        export = config.get("export")
        if export is None:
            raise FileNotFoundError(f"{folder} has no exported model; create one with `mmfusion export`.")
        if export["format"] != "onnx":
            runs = "a Predictor needs the format onnx, or the saved model."
            raise ValueError(f"{folder} has a program for torch.export.load; {runs}")
        path = folder / export["file"]
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {path.name}; export the model again.")
        if digest(path) != export["sha256"]:
            raise ValueError(f"{path} does not match config.json; export the model again.")
        check_files(folder, export["file"])
        self._session = open_session(path, device)
        self._inputs: list[str] = [node.name for node in self._session.get_inputs()]
        self._outputs: list[str] = [node.name for node in self._session.get_outputs()]
        self.sides = nn.Identity()  # provides the towers' features, as in FusionModel
        self._model: dict[str, Any] = config["model"]
        self._tower_args = {"crop": export.get("roi_crop")}
        self.architecture: str | None = config.get("architecture")
        self.num_classes: int = config["model"].get("num_classes") or 0
        self.image_layout: str | None = export.get("image_layout")
        self.task = task_named(self._model.get("task", DEFAULT), **(self._model.get("task_args") or {}))
        for kind, modality in TOWERS:
            if f"{modality}_present" in self._inputs and not self._model.get(kind):
                raise ValueError(f"{folder / CONFIG} has no model.{kind}, and the program takes one; export it again.")
        unknown = sorted(set(self._inputs) - set(export.get("inputs") or self._inputs))
        if unknown:
            raise ValueError(f"{path} takes {', '.join(unknown)}, which config.json does not list; export it again.")

    def check_processor(self, processor: Any) -> None:
        """Reject a processor that does not match the exported model.

        Raises:
            ValueError: The processor lacks images, texts or columns, or has another image size or more word pieces than
                the model.
        """
        makes = {
            "pixel_values": processor.image_size,
            "input_ids": processor.tokenizer,
            "numeric_values": processor.table,
        }
        for name, made in makes.items():
            if name in self._inputs and made is None:
                raise ValueError(f"The exported model needs {name}, but the processor makes none.")
        shape = next((node.shape for node in self._session.get_inputs() if node.name == "pixel_values"), None)
        if shape and isinstance(shape[-1], int) and shape[-1] != processor.image_size:
            raise ValueError(
                f"The exported model expects images of {shape[-1]} pixels, the processor makes {processor.image_size}."
            )
        known = ((self._model.get("text_args") or {}).get("config") or {}).get("vocab_size")
        if "input_ids" in self._inputs and isinstance(known, int):
            check_vocabulary(processor.tokenizer, known)

    def forward(self, **inputs: Tensor | None) -> FusionOutput:
        """Classify a batch; arguments as in ``FusionModel.forward``.

        Masks and flags default to True, and the region to that of the tower. A batch without images needs blank ones
        with ``image_present`` False.

        Raises:
            ValueError: The images, texts or columns are missing.
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        for name, modality in NEEDED.items():
            if name in self._inputs and name not in given:
                blank = f"pass zeros with {modality}_present false."
                raise ValueError(
                    f"An exported model needs all of its inputs, but {name} is missing; for samples without it {blank}"
                )
        found = dict(zip(self._outputs, run_session(self._session, self._whole(given)), strict=True))
        pooled = {name.removesuffix(FEATURES): x for name, x in found.items() if name.endswith(FEATURES)}
        self.sides({modality: Features(pooled=x) for modality, x in pooled.items()})
        return self.task.shaped(FusionOutput(logits=found["logits"]))

    def _whole(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """Add the defaults of the original model to a batch."""
        found = dict(given)
        for kind, modality in TOWERS:
            name = self._model[kind]
            if f"{modality}_present" in self._inputs and name in registry.names(kind):
                tower: Any = registry.get(kind, name)
                found = tower.complete(found, self._tower_args)
        everywhere = torch.ones(len(next(iter(given.values()))), dtype=torch.bool)
        return {name: everywhere for name in self._inputs if name.endswith("_present")} | found
