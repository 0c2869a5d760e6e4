"""An exported model on ONNX Runtime, called as the model it came from."""

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

#: type of a torch device -> execution provider of ONNX Runtime.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}

#: end of the names of outputs that hold what the tower of a modality pools.
FEATURES = "_features"

#: kinds of towers that complete a batch, and their modality.
TOWERS = (("image_tower", "image"), ("text_tower", "text"))

#: inputs that the model cannot make up -> their modality.
NEEDED = {"pixel_values": "image", "input_ids": "text", "numeric_values": "table", "category_ids": "table"}


def open_session(path: Path, device: str | torch.device | None = None) -> Any:
    """An inference session over a file, with as many threads as torch has, on ``cpu`` or ``cuda``.

    Without a device it takes the GPU where the installed ONNX Runtime has it.

    Raises:
        ImportError: ONNX Runtime is not installed.
        ValueError: the file is damaged, or the installed ONNX Runtime cannot compute on the device.
    """
    try:
        import onnxruntime
    except ImportError:
        raise ImportError('An ONNX model runs on onnxruntime; pip install "mmfusion[onnx]".') from None
    available = onnxruntime.get_available_providers()
    kinds = [torch.device(device).type] if device is not None else ["cuda", "cpu"]
    providers = [PROVIDERS[kind] for kind in kinds if PROVIDERS.get(kind) in available]
    if not providers:
        usable = ", ".join(kind for kind, provider in PROVIDERS.items() if provider in available)
        raise ValueError(f"The installed onnxruntime has no device {str(device)!r}; it has {usable}.")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors
    try:
        return onnxruntime.InferenceSession(path, sess_options=options, providers=providers)
    except Exception as error:  # its errors are plain exceptions of many kinds
        raise ValueError(
            f"{path} is damaged, or not for this onnxruntime ({one_line(error)}); export it again."
        ) from None


def run_session(session: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The session's outputs, as tensors on the CPU, for inputs by name; what it does not take is left out."""
    fed = {node.name: np.ascontiguousarray(inputs[node.name].cpu().numpy()) for node in session.get_inputs()}
    try:
        outputs = session.run(None, fed)
    except Exception as error:  # as above
        raise ValueError(
            f"The program does not take these inputs ({one_line(error)}); export the model again."
        ) from None
    return tuple(torch.from_numpy(array) for array in outputs)


class OnnxModel(nn.Module):
    """``model(**batch) -> FusionOutput`` with the logits, computed by ONNX Runtime; it cannot be trained or explained.

    Args:
        folder: that :func:`~mmfusion.exporting.export_model` wrote.
        device: as :func:`open_session` takes it.

    It has the ``architecture``, ``num_classes``, ``task`` and ``image_layout`` of the model that was exported.

    Raises:
        FileNotFoundError: the folder holds no export, or its file is missing.
        ValueError: another format than ONNX, a damaged file, or no such device.
        ImportError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path, device: str | torch.device | None = None) -> None:
        super().__init__()
        config = read_config(folder)
        export = config.get("export")
        if export is None:
            raise FileNotFoundError(f"{folder} holds no exported model; `mmfusion export` makes one.")
        if export["format"] != "onnx":
            runs = "a Predictor runs the format onnx, or the saved model."
            raise ValueError(f"{folder} holds a program for torch.export.load; {runs}")
        path = folder / export["file"]
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {path.name}; export the model again.")
        if digest(path) != export["sha256"]:
            raise ValueError(f"{path} is not the file that config.json was written with; export the model again.")
        check_files(folder, export["file"])
        self._session = open_session(path, device)
        self._inputs: list[str] = [node.name for node in self._session.get_inputs()]
        self._outputs: list[str] = [node.name for node in self._session.get_outputs()]
        self.sides = nn.Identity()  # what is asked for the towers' features, as that of a FusionModel
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
            raise ValueError(f"{path} takes {', '.join(unknown)}, which config.json does not tell; export it again.")

    def check_processor(self, processor: Any) -> None:
        """Refuse a processor that does not make the program's inputs.

        Raises:
            ValueError: It makes no images, texts or columns where the program takes some, images of another size, or
                word pieces that the program does not know.
        """
        makes = {
            "pixel_values": processor.image_size,
            "input_ids": processor.tokenizer,
            "numeric_values": processor.table,
        }
        for name, made in makes.items():
            if name in self._inputs and made is None:
                raise ValueError(f"The program takes {name}, and the processor makes none.")
        shape = next((node.shape for node in self._session.get_inputs() if node.name == "pixel_values"), None)
        if shape and isinstance(shape[-1], int) and shape[-1] != processor.image_size:
            raise ValueError(
                f"The program takes images of {shape[-1]} pixels, the processor makes {processor.image_size}."
            )
        known = ((self._model.get("text_args") or {}).get("config") or {}).get("vocab_size")
        if "input_ids" in self._inputs and isinstance(known, int):
            check_vocabulary(processor.tokenizer, known)

    def forward(self, **inputs: Tensor | None) -> FusionOutput:
        """Classify a batch; the arguments are those of ``FusionModel.forward``.

        Masks and flags that are not given are all true, and a region that is not given is the one that the tower takes.
        A batch without any image has blank ones, and ``image_present`` false.

        Raises:
            ValueError: The images, texts or columns are missing.
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        for name, modality in NEEDED.items():
            if name in self._inputs and name not in given:
                blank = f"give zeros, and {modality}_present false."
                raise ValueError(
                    f"An exported model takes all of its inputs, and {name} is missing; for samples without it {blank}"
                )
        found = dict(zip(self._outputs, run_session(self._session, self._whole(given)), strict=True))
        pooled = {name.removesuffix(FEATURES): x for name, x in found.items() if name.endswith(FEATURES)}
        self.sides({modality: Features(pooled=x) for modality, x in pooled.items()})
        return self.task.shaped(FusionOutput(logits=found["logits"]))

    def _whole(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with what the model would have filled in."""
        found = dict(given)
        for kind, modality in TOWERS:
            name = self._model[kind]
            if f"{modality}_present" in self._inputs and name in registry.names(kind):
                tower: Any = registry.get(kind, name)
                found = tower.complete(found, self._tower_args)
        everywhere = torch.ones(len(next(iter(given.values()))), dtype=torch.bool)
        return {name: everywhere for name in self._inputs if name.endswith("_present")} | found
