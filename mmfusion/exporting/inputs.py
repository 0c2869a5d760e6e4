"""The tensors that an exported program takes: their names, which of their sizes are free, and random ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmfusion.inference.onnx_model import SEVERAL
from mmfusion.models import FusionModel


def input_names(model: FusionModel) -> list[str]:
    """Names of the program's inputs, those of ``FusionModel.forward``: all that the model's towers read."""
    names: list[str] = []
    if model.image_tower is not None:
        names += ["pixel_values", *getattr(model.image_tower, "reads", ()), "image_present"]
    if model.text_tower is not None:
        names += ["input_ids", "attention_mask", "text_present"]
    return names


def fewest_images(model: FusionModel) -> int:
    """How many slices or views a program takes at least; a tower of views compares two, one of them absent maybe."""
    return 2 if model.image_layout == "views" else 1


def free_sizes(model: FusionModel) -> dict[str, Any]:
    """Which dimensions of the inputs an exported program leaves open, as ``torch.export`` wants them."""
    batch = torch.export.Dim("batch")
    images = torch.export.Dim("images", min=fewest_images(model))
    length = torch.export.Dim("length", max=getattr(model.text_tower, "max_length", None))
    several = model.image_layout in ("slices", "views")
    sizes: dict[str, Any] = {name: {0: batch} for name in input_names(model)}
    for name in sizes:
        if name in ("input_ids", "attention_mask"):
            sizes[name][1] = length
        elif name in SEVERAL or (name == "pixel_values" and several):
            sizes[name][1] = images
    return sizes


def random_inputs(
    model: FusionModel, *, image_size: int | None, rows: int, length: int, images: int, seed: int = 0
) -> dict[str, Tensor]:
    """A batch such as the processor makes, of noise: with samples that lack the image, the text, slices or views.

    The first sample has everything, the second no image, the third no text; further ones have some images and a part of
    the text.

    Args:
        model: for which inputs.
        image_size: side of the pictures in pixels.
        rows: B.
        length: L, of the longest text.
        images: slices or views, where the model reads several; at least :func:`fewest_images`.
        seed: of the noise.
    """
    images = max(images, fewest_images(model))
    generator = torch.Generator().manual_seed(seed)
    row = torch.arange(rows)
    inputs: dict[str, Tensor] = {}
    names = input_names(model)
    if model.image_tower is not None:
        assert image_size is not None
        mask = next((name for name in SEVERAL if name in names), None)
        picture = (3, image_size, image_size)
        present = row != 1
        shape = (rows, *picture) if mask is None else (rows, images, *picture)
        pixels = torch.randn(shape, generator=generator) * present.view(-1, *[1] * (len(shape) - 1))
        inputs["pixel_values"] = pixels
        if mask is not None:
            # sample i lacks its last image where i is odd, its first where it can be divided by three
            place = torch.arange(images)
            gone = ((row % 2 == 1)[:, None] & (place == images - 1)) | (((row % 3 == 2)[:, None]) & (place == 0))
            inputs[mask] = ~gone & present[:, None] if images > 1 else present[:, None].clone()
        if "roi_values" in names:
            inputs["roi_values"] = torch.randn(rows, *picture, generator=generator)
        inputs["image_present"] = present
    if model.text_tower is not None:
        config = model.text_tower.backbone.config
        present = row != 2
        real = torch.arange(length) < (length - row).clamp(min=1)[:, None]
        mask_values = real & present[:, None]
        ids = torch.randint(0, config.vocab_size, (rows, length), generator=generator)
        inputs["input_ids"] = torch.where(mask_values, ids, config.pad_token_id or 0)
        inputs["attention_mask"] = mask_values.long()
        inputs["text_present"] = present
    return {name: inputs[name] for name in names}
