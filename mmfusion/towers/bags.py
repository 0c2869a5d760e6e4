"""Tower for bags of precomputed feature vectors: tiles of a slide, patches, frames."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.outputs import Features
from mmfusion.registry import register
from mmfusion.towers.base import Tower

#: Name of the image encoder for precomputed features.
FEATURES = "features"


@register("image_tower", "bags")
class BagsTower(Tower):
    """Bags of feature vectors instead of images, each a set of any size, combined by an aggregator.

    ``bag_mask`` marks the present vectors; the values at other places never affect the result.

    Args:
        encoder: ``features``.
        dim: Width of the vectors; training determines it from the data.
        width: Width that the vectors are projected to, with a norm and a GELU, before aggregation; None leaves them
            unchanged.
        dropout: Dropout on the vectors before aggregation.
        aggregator: Name of the aggregator.
        aggregator_args: Keywords of the aggregator.

    Raises:
        ValueError: ``dim`` is missing, another encoder is given, or levels are requested.
        TypeError: The aggregator has no such keyword.
    """

    modality = "image"
    side = "image"
    layout = "bags"
    masks = ("bag_mask",)
    free: ClassVar[Mapping[str, str]] = {"bag_values": "instances", "bag_mask": "instances"}

    def __init__(
        self,
        encoder: str = FEATURES,
        weights: str | None = None,
        num_levels: int = 0,
        dim: int | None = None,
        width: int | None = None,
        dropout: float = 0.0,
        aggregator: str = "abmil",
        aggregator_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if encoder != FEATURES:
            raise ValueError(f"image_tower 'bags' needs image_encoder 'features', not {encoder!r}.")
        if num_levels:
            raise ValueError(
                f"image_tower 'bags' has no levels, but the fusion block needs {num_levels}; choose another fusion."
            )
        if dim is None:
            raise ValueError("image_encoder 'features' needs the width of its vectors: image_args={'dim': 1024}.")
        self.dim = dim
        self.backbone = nn.Identity()  # features are precomputed
        layers = [] if width is None else [nn.Linear(dim, width), nn.LayerNorm(width), nn.GELU()]
        self.proj = nn.Sequential(*layers, nn.Dropout(dropout))
        options = {"in_features": dim if width is None else width, **(aggregator_args or {})}
        self.aggregator = registry.create("aggregator", aggregator, **options)
        self.num_features = self.aggregator.num_features

    @classmethod
    def complete(cls, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
        """Add a mask of all vectors if none is given."""
        everywhere = torch.ones(inputs["bag_values"].shape[:2], dtype=torch.bool, device=inputs["bag_values"].device)
        return {"bag_mask": everywhere, **inputs}

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random vectors; samples with odd index lack the last one."""
        row, place = torch.arange(len(present))[:, None], torch.arange(count)
        mask = present[:, None] & ~((row % 2 == 1) & (place == count - 1) & (count > 1))
        values = torch.randn((len(present), count, self.dim), generator=generator)
        return {"bag_values": values * mask.unsqueeze(-1), "bag_mask": mask}

    def forward(self, bag_values: Tensor, bag_mask: Tensor | None = None) -> Features:
        """Bags (B, N, D) in any floating-point type and a mask (B, N) -> tokens, pooled (B, num_features), mask.

        Raises:
            ValueError: The vectors have another width, or the mask does not match.
        """
        if bag_values.ndim != 3 or bag_values.shape[-1] != self.dim:
            raise ValueError(f"image_tower 'bags' needs bag_values (B, N, {self.dim}), got {tuple(bag_values.shape)}.")
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        vectors = bag_values.to(dtype)
        if bag_mask is not None:
            if bag_mask.shape != vectors.shape[:2]:
                shapes = f"a mask of {tuple(bag_mask.shape)} does not fit bags of {tuple(vectors.shape)}"
                raise ValueError(f"image_tower 'bags': {shapes}.")
            # absent positions may be NaN, which a weight of zero does not remove
            vectors = vectors.masked_fill(~bag_mask.bool().unsqueeze(-1), 0)
        features: Features = self.aggregator(self.proj(vectors), bag_mask)
        return features
