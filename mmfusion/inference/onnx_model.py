"""An exported model on ONNX Runtime, called as the model it came from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.artifacts.folder import read_config
from mmfusion.files import sha256
from mmfusion.inference.session import open_session, run_session
from mmfusion.outputs import FusionOutput


class OnnxModel(nn.Module):
    """``model(**batch) -> FusionOutput`` with the logits, computed by ONNX Runtime; it cannot be trained or explained.

    Args:
        folder: that :func:`~mmfusion.exporting.export_model` wrote.
        device: as :func:`~mmfusion.inference.session.open_session` takes it.

    Attributes:
        architecture: name of the exported model's.
        num_classes: C.
        image_layout: what ``pixel_values`` hold per sample: ``image``, ``slices`` or ``views``; None without images.

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
            raise ValueError(
                f"{folder} holds a program for torch.export.load; a Predictor runs the format onnx, or the saved model."
            )
        path = folder / export["file"]
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {path.name}; export the model again.")
        if sha256(path) != export["sha256"]:
            raise ValueError(f"{path} is not the file that config.json was written with; export the model again.")
        self._session = open_session(path, device)
        self._inputs: list[str] = [node.name for node in self._session.get_inputs()]
        self._model: dict[str, Any] = config["model"]
        self._tower_args = {"crop": export["roi_crop"]}
        self.architecture: str | None = config.get("architecture")
        self.num_classes: int = config["model"]["num_classes"]
        self.image_layout: str | None = export["image_layout"]

    def forward(self, **inputs: Tensor | None) -> FusionOutput:
        """Classify a batch; the arguments are those of ``FusionModel.forward``.

        Masks and flags that are not given are all true, and a region that is not given is the one that the tower takes.
        A batch without any image has blank ones, and ``image_present`` false.

        Raises:
            ValueError: ``pixel_values`` or ``input_ids`` is missing.
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        for name in ("pixel_values", "input_ids"):
            if name in self._inputs and name not in given:
                flag = "image_present" if name == "pixel_values" else "text_present"
                raise ValueError(
                    f"An exported model takes all of its inputs, and {name} is missing; for samples without it give "
                    f"zeros, and {flag} false."
                )
        logits, _ = run_session(self._session, self._whole(given))
        return FusionOutput(logits=logits)

    def _whole(self, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """The batch with what the model would have filled in."""
        found = dict(given)
        for kind, modality in (("image_tower", "image"), ("text_tower", "text")):
            name = self._model[kind]
            if f"{modality}_present" in self._inputs and name in registry.names(kind):
                tower: Any = registry.get(kind, name)
                found = tower.complete(found, self._tower_args)
        everywhere = torch.ones(len(next(iter(given.values()))), dtype=torch.bool)
        return {name: everywhere for name in self._inputs if name.endswith("_present")} | found
