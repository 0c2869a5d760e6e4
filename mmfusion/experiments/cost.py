"""Cost of a model: parameters, FLOPs and time per case."""

import contextlib
import copy
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmfusion.data import CaseTable, Processor, read_cases
from mmfusion.hardware import resolve_channels_last
from mmfusion.inference.rows import ROW_ERRORS, AllRows
from mmfusion.models import load_model
from mmfusion.training.build import freeze
from mmfusion.training.config import RunConfig

#: Batch size and number of repetitions for the time per case.
BATCH, REPEATS = 8, 5


def cost_of(folder: Path, config: RunConfig) -> dict[str, Any]:
    """Cost of a saved model on the first test rows of a run, towers included.

    Args:
        folder: The saved model.
        config: The run that trained it.

    Returns:
        ``parameters`` and ``trained_parameters``; ``gflops`` per case, counting two per multiply-add of convolutions
        and matrix products (without scans and activations); ``ms``, the median time per case in a batch of 8 on this
        machine under its current load.
    """
    model, processor = load_model(folder), Processor.from_pretrained(folder)
    parameters = sum(p.numel() for p in model.parameters())
    tuned = copy.deepcopy(model)  # adapters would be counted as part of the model
    freeze(tuned, config.train)
    trained = sum(p.numel() for p in tuned.parameters() if p.requires_grad)
    cases = read_cases(config.data, config.dataset).resolve(config.dataset.on_bad_row)
    rows = _first_rows(cases.select("test") if "test" in cases.splits else cases, processor)
    inputs = {name: value for name, value in processor.collate(rows).items() if name != "labels"}
    if resolve_channels_last(config.train.channels_last):
        model.to(memory_format=torch.channels_last)
    model.eval()
    seconds = []
    with torch.inference_mode():
        # fused attention and recurrences are decomposed into matrix products, which can be counted
        with (
            warnings.catch_warnings(action="ignore"),  # torch warns about missing GPUs
            sdpa_kernel(SDPBackend.MATH),
            torch.backends.mkldnn.flags(enabled=False),
            FlopCounterMode(display=False) as counter,
        ):
            model(**inputs)
        for _ in range(REPEATS):
            began = time.perf_counter()
            model(**inputs)
            seconds.append(time.perf_counter() - began)
    count = len(rows)
    return {
        "parameters": parameters,
        "trained_parameters": trained,
        "gflops": counter.get_total_flops() / count / 1e9,
        "ms": 1000 * statistics.median(seconds) / count,
    }


def _first_rows(cases: CaseTable, processor: Processor) -> list[dict[str, Any]]:
    """The first readable rows, encoded."""
    rows, items = AllRows(cases, processor), []
    for i in range(len(rows)):
        with contextlib.suppress(*ROW_ERRORS):
            items.append(rows[i])
        if len(items) == BATCH:
            break
    return items
