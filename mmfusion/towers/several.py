"""Base of towers for slices and views: several images per sample, some of them absent."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmfusion.layers import spread
from mmfusion.towers.image import Backbone, TimmTower

#: number of images per pass of the backbone without gradients, which limits the memory for long studies.
CHUNK = 64


def build_without_levels(tower: str, encoder: str, weights: str | None, num_levels: int, **timm_args: Any) -> Backbone:
    """Build a backbone without levels; raise ValueError if the fusion block needs levels."""
    if num_levels:
        raise ValueError(
            f"image_tower {tower!r} has no levels, but the fusion block needs {num_levels}; "
            "choose another fusion, or image_tower 'single'."
        )
    return Backbone(encoder, weights, **timm_args)


class SeveralTower(TimmTower):
    """Base of towers for several normalized images per sample, (B, S, 3, H, W) in order, and a mask (B, S)."""

    def as_sequence(self, pixel_values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Images (B, S, 3, H, W) and a mask (B, S) with at least one True per sample.

        In a sample without images, the first position counts as present; the model replaces its features later.

        Args:
            pixel_values: (B, S, 3, H, W), or (B, 3, H, W) for one image per sample.
            mask: (B, S) bool, True where an image is present; None if all are.

        Raises:
            ValueError: Shapes do not match.
        """
        if pixel_values.ndim not in (4, 5):
            raise ValueError(
                f"image_tower {self.layout!r} takes pixel_values (B, S, 3, H, W) or (B, 3, H, W), "
                f"got {tuple(pixel_values.shape)}."
            )
        if pixel_values.ndim == 4:
            pixel_values = pixel_values.unsqueeze(1)
        shape = pixel_values.shape[:2]
        if mask is None:
            return pixel_values, pixel_values.new_ones(shape, dtype=torch.bool)
        if mask.shape != shape:
            raise ValueError(
                f"image_tower {self.layout!r}: a mask of {tuple(mask.shape)} does not fit {tuple(shape)} images."
            )
        mask = mask.bool()
        first = torch.arange(shape[1], device=mask.device) == 0
        return pixel_values, mask | (first & ~mask.any(dim=1, keepdim=True))

    @classmethod
    def complete(cls, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
        """Add the sequence dimension and the mask if missing, and pad to at least ``fewest`` images."""
        pixels, (name,) = inputs["pixel_values"], cls.masks
        pixels = pixels.unsqueeze(1) if pixels.ndim == 4 else pixels
        mask = inputs.get(name)
        mask = torch.ones(pixels.shape[:2], dtype=torch.bool) if mask is None else mask
        if lacking := max(cls.fewest - pixels.shape[1], 0):
            pixels = torch.cat([pixels, torch.zeros_like(pixels[:, :1]).expand(-1, lacking, -1, -1, -1)], dim=1)
            mask = torch.cat([mask, torch.zeros_like(mask[:, :1]).expand(-1, lacking)], dim=1)
        return {**inputs, "pixel_values": pixels, name: mask}

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Images and a mask: sample i lacks its last image if i is odd, and its first if i % 3 is 2."""
        count = max(count, self.fewest)
        shape = (count, 3, image_size, image_size)
        row, place = torch.arange(len(present))[:, None], torch.arange(count)
        gone = ((row % 2 == 1) & (place == count - 1)) | ((row % 3 == 2) & (place == 0))
        mask = present[:, None] & ~gone if count > 1 else present[:, None].clone()
        return {"pixel_values": self.noise(present, shape, generator), self.masks[0]: mask}


def each_present(
    function: Callable[[Tensor], Sequence[Tensor]], images: Tensor, mask: Tensor, backbone: nn.Module
) -> tuple[Tensor, ...]:
    """Apply a function of (N, 3, H, W) to the present images only.

    Absent images cost nothing and do not enter BatchNorm statistics. Without gradients, :data:`CHUNK` images are
    processed at a time, unless a BatchNorm computes its statistics over all of them. Export and compilation process all
    images, so that shapes do not depend on the data; in evaluation mode the present ones have the same results.

    Args:
        function: (N, 3, H, W) -> tensors (N, ...).
        images: (B, S, 3, H, W).
        mask: (B, S) bool.
        backbone: Module that the function runs.

    Returns:
        The tensors as (B, S, ...); zeros (when compiled: arbitrary values) where the image is absent.
    """
    if torch.compiler.is_compiling():
        return tuple(x.unflatten(0, mask.shape) for x in function(images.flatten(0, 1)))
    shown = images[mask]
    measures = any(isinstance(module, _BatchNorm) and module.training for module in backbone.modules())
    if torch.is_grad_enabled() or len(shown) <= CHUNK or measures:
        results = function(shown)
    else:
        results = [torch.cat(parts) for parts in zip(*map(function, shown.split(CHUNK)), strict=True)]
    return tuple(spread(x, mask) for x in results)
