"""ONNX Runtime: a file opened, and run on torch tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: type of a torch device -> execution provider of ONNX Runtime.
PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} is damaged, or not for this onnxruntime ({reason}); export it again.") from None


def run_session(session: Any, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
    """The session's outputs, as tensors on the CPU, for inputs by name; what it does not take is left out."""
    fed = {node.name: np.ascontiguousarray(inputs[node.name].cpu().numpy()) for node in session.get_inputs()}
    return tuple(torch.from_numpy(array) for array in session.run(None, fed))
