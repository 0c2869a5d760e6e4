"""Small inputs, and every registered model with tiny towers."""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch

import mmfusion
from mmfusion.models.factory import resolve_config

#: columns of a model that reads a table: two numbers, one of them with bins, and two categories.
COLUMNS: dict[str, Any] = {"numeric": 2, "categories": [3, 5], "bins": [5, 0]}

TINY_TOWERS = {"image_encoder": "test_resnet", "text_encoder": "bert_tiny"}


@functools.cache
def registered_config(name: str) -> dict[str, Any]:
    """The configuration of a registered architecture (built without memory for its weights)."""
    columns = {"table_args": COLUMNS} if resolve_config(name).get("table_encoder") is not None else {}
    with torch.device("meta"):
        return mmfusion.create_model(name, **columns).config


@functools.cache
def _shrunk(name: str, overrides: tuple[tuple[str, Any], ...]) -> mmfusion.FusionModel:
    config = registered_config(name)
    swaps: dict[str, Any] = {part: tiny for part, tiny in TINY_TOWERS.items() if config[part] is not None}
    if "text_encoder" in swaps:
        swaps["text_args"] = {"vocab_size": 128}
    if config["dim"] is not None:
        swaps["dim"] = 32
    if config.get("table_encoder") is not None or dict(overrides).get("table_encoder") is not None:
        swaps["table_args"] = COLUMNS
    torch.manual_seed(0)
    return mmfusion.create_model(name, num_classes=3, **{**swaps, **dict(overrides)})


def shrunk(name: str, **overrides: Any) -> mmfusion.FusionModel:
    """The architecture of that name with tiny towers."""
    if any(isinstance(value, dict) for value in overrides.values()):
        return _shrunk.__wrapped__(name, tuple(overrides.items()))
    return copy.deepcopy(_shrunk(name, tuple(overrides.items())))


def larger_siblings(names: list[str]) -> set[str]:
    """Architectures with a ``lite0`` variant, which with tiny towers are nearly the same model."""
    families = {name.removesuffix("_lite0") for name in names if name.endswith("_lite0")}
    return {name for name in names if not name.endswith("_lite0") and any(name.startswith(f"{f}_") for f in families)}


def batch(
    model: mmfusion.FusionModel, rows: int = 4, length: int = 9, size: int = 48, seed: int = 0
) -> dict[str, torch.Tensor]:
    """Random inputs of a model: texts and studies of different lengths, missing slices and views."""
    generator = torch.Generator().manual_seed(seed)
    inputs: dict[str, torch.Tensor] = {}
    if model.image_tower is not None:
        mask = next(iter(model.image_tower.masks), None)
        count = 4 if model.image_tower.fewest == 1 else 2
        shape = (rows, 3, size, size) if mask is None else (rows, count, 3, size, size)
        inputs["pixel_values"] = torch.randn(shape, generator=generator)
        if mask is not None:
            inputs[mask] = torch.ones(shape[:2], dtype=torch.bool)
            inputs[mask][1:2, -1] = inputs[mask][2:3, 0] = False
        if "roi_values" in model.image_tower.inputs:
            inputs["roi_values"] = torch.randn(rows, 3, size, size, generator=generator)
    if model.text_tower is not None:
        inputs["input_ids"] = torch.randint(5, 128, (rows, length), generator=generator)
        inputs["attention_mask"] = torch.ones(rows, length, dtype=torch.long)
        for i in range(1, rows):
            inputs["attention_mask"][i, length - i :] = 0
    if model.table_tower is not None:
        inputs |= model.table_tower.example(
            torch.ones(rows, dtype=torch.bool), count=1, image_size=None, generator=generator
        )
    return inputs


def labels_for(loss: mmfusion.losses.Loss, rows: int, outputs: int) -> torch.Tensor:
    """Labels for a loss on logits (rows, outputs): classes, labels or numbers."""
    classes = torch.arange(rows) % outputs
    if "multilabel" in loss.tasks:
        return torch.eye(outputs)[classes]
    return torch.linspace(-1, 1, rows * outputs).reshape(rows, outputs) if "regression" in loss.tasks else classes
