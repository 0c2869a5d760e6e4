"""Inputs of an exported program: names, dynamic dimensions, and random examples."""

from typing import Any

import torch
from torch import Tensor

from mmfusion.models import FusionModel


def input_names(model: FusionModel) -> list[str]:
    """Names of the program's inputs: those of ``FusionModel.forward`` that the model's towers read."""
    return [name for modality, tower in model.towers.items() for name in (*tower.inputs, f"{modality}_present")]


def free_sizes(model: FusionModel) -> dict[str, Any]:
    """Dynamic dimensions of the inputs, in the format of ``torch.export``."""
    batch = torch.export.Dim("batch")
    sizes: dict[str, Any] = {name: {0: batch} for name in input_names(model)}
    for tower in model.towers.values():
        what = {unit: torch.export.Dim(unit, min=tower.fewest, max=tower.max_length) for unit in tower.free.values()}
        for name, unit in tower.free.items():
            sizes[name][1] = what[unit]
    return sizes


def random_inputs(
    model: FusionModel, *, image_size: int | None, rows: int, length: int, images: int, seed: int = 0
) -> dict[str, Tensor]:
    """A batch of noise in the processor's format, with samples that lack a modality, slices or views.

    The first sample is complete; each further one lacks one modality (the second the image, the third the text) until
    every modality has been left out once.

    Args:
        model: Model that reads the inputs.
        image_size: Side of the images in pixels.
        rows: B.
        length: Length L of the longest text, in tokens.
        images: Number of slices or views, if the model reads several.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    row = torch.arange(rows)
    inputs: dict[str, Tensor] = {}
    for i, (modality, tower) in enumerate(model.towers.items(), start=1):
        present = row != i
        count = length if "length" in tower.free.values() else images
        inputs |= tower.example(present, count=count, image_size=image_size, generator=generator)
        inputs[f"{modality}_present"] = present
    return {name: inputs[name] for name in input_names(model)}
