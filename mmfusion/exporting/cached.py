"""Cached ONNX programs of saved models, for ``engine="onnx"``."""

from pathlib import Path

import torch

from mmfusion._version import __version__
from mmfusion.artifacts.integrity import digest
from mmfusion.artifacts.names import CONFIG, WEIGHTS
from mmfusion.exporting.artifact import export_model
from mmfusion.files import cache_folder, short_hash
from mmfusion.inference.predictor import Predictor


def program_of(folder: Path) -> Path:
    """The exported folder of a saved model, created on first use of these weights and versions.

    Args:
        folder: The saved model.

    Raises:
        ImportError: The libraries of ONNX are not installed.
        ValueError: As :func:`~mmfusion.exporting.export_model`.
    """
    made_of = [digest(folder / name) for name in (CONFIG, WEIGHTS)]
    made = cache_folder("onnx") / short_hash([*made_of, __version__, torch.__version__])
    if not (made / CONFIG).is_file():
        print(f"exporting {folder.name} to ONNX (once, takes a minute or more); cached in {made}")
        export_model(Predictor.from_pretrained(folder, device="cpu", engine="torch"), made, force=True)
    return made
