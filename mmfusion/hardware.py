"""Precision, memory format and compilation that suit the machine."""

import os
import shutil
import sys
from collections.abc import Mapping
from typing import Any

import torch

PRECISIONS = ("auto", "bf16", "fp16", "fp32")


def has_accelerator() -> bool:
    """Whether training runs on a device other than the CPU."""
    return torch.accelerator.is_available()


def resolve_precision(precision: str) -> str:
    """Resolve a precision setting to ``bf16``, ``fp16`` or ``fp32``.

    ``auto`` uses bf16 only with hardware support: GPUs of the Ampere generation or later, CPUs with AMX or
    AVX512-BF16. Elsewhere bf16 is emulated and slower than fp32.

    Raises:
        ValueError: The precision is unknown, or fp16 on a CPU.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"train.precision must be one of {', '.join(PRECISIONS)}; got {precision!r}.")
    if precision == "fp16" and not has_accelerator():
        raise ValueError("train.precision fp16 needs a GPU; use auto, bf16 or fp32 on a CPU.")
    if precision != "auto":
        return precision
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    cpu = torch.cpu.get_capabilities()
    return "bf16" if not has_accelerator() and (cpu.get("amx_bf16") or cpu.get("avx512_bf16")) else "fp32"


def resolve_channels_last(channels_last: bool | None) -> bool:
    """Resolve a setting that may be None: convolutions are faster in this format on CPUs and CUDA."""
    if channels_last is not None:
        return channels_last
    return torch.cuda.is_available() or not has_accelerator()


def check_compiler() -> None:
    """Reject torch.compile on a CPU without the C++ compiler that it calls (``CXX``, else the system's).

    Raises:
        ValueError: The compiler does not exist.
    """
    name = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    if not has_accelerator() and shutil.which(name) is None:
        raise ValueError(f"compile needs the C++ compiler {name}, which was not found; install it, or remove compile.")


def of_any_rows(batch: Mapping[str, Any]) -> None:
    """Tell torch.compile that the number of rows of a batch varies, so that the last, smaller one needs no new code."""
    for value in batch.values():
        if isinstance(value, Mapping):
            of_any_rows(value)
        elif isinstance(value, torch.Tensor) and value.ndim:
            torch._dynamo.maybe_mark_dynamic(value, 0)
