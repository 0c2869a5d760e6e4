"""Tower for bags of feature vectors, computed before by another model: tiles of a slide, patches, frames."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.outputs import Features
from mmfusion.registry import register
from mmfusion.towers.base import Tower

#: the image encoder that stands for features computed before.
FEATURES = "features"


@register("image_tower", "bags")
class BagsTower(Tower):
    """Bags of feature vectors in place of images, each a set of any size, then an aggregator.

    ``bag_mask`` marks the present vectors; the values at other places never affect the result.

    Args:
        encoder: ``features``.
        dim: Width of the vectors; training determines it from the data.
        width: Width that the vectors are projected to, with a norm and a GELU, before aggregation; None leaves them
            unchanged.
        dropout: Dropout on the vectors before aggregation.
        aggregator: name of the aggregator.
        aggregator_args: Keywords of the aggregator.

    Raises:
        ValueError: ``dim`` is not given, another encoder is, or levels are asked for.
        TypeError: A keyword that the aggregator does not take.
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
            raise ValueError(f"image_tower 'bags' goes with image_encoder 'features', not {encoder!r}.")
        if num_levels:
            raise ValueError(
                f"image_tower 'bags' gives no levels, and the fusion block reads {num_levels}; choose another fusion."
            )
        if dim is None:
            raise ValueError("image_encoder 'features' needs the width of its vectors: image_args={'dim': 1024}.")
        self.dim = dim
        self.backbone = nn.Identity()  # the encoder ran before
        layers = [] if width is None else [nn.Linear(dim, width), nn.LayerNorm(width), nn.GELU()]
        self.proj = nn.Sequential(*layers, nn.Dropout(dropout))
        options = {"in_features": dim if width is None else width, **(aggregator_args or {})}
        self.aggregator = registry.create("aggregator", aggregator, **options)
        self.num_features = self.aggregator.num_features

    @classmethod
    def complete(cls, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
        """A mask of all vectors where none is given."""
        everywhere = torch.ones(inputs["bag_values"].shape[:2], dtype=torch.bool, device=inputs["bag_values"].device)
        return {"bag_mask": everywhere, **inputs}

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Random vectors; sample i lacks its last where i is odd."""
        row, place = torch.arange(len(present))[:, None], torch.arange(count)
        mask = present[:, None] & ~((row % 2 == 1) & (place == count - 1) & (count > 1))
        values = torch.randn((len(present), count, self.dim), generator=generator)
        return {"bag_values": values * mask.unsqueeze(-1), "bag_mask": mask}

    def forward(self, bag_values: Tensor, bag_mask: Tensor | None = None) -> Features:
        """Bags (B, N, D) in any floating-point type and a mask (B, N) -> tokens, pooled (B, num_features), mask.

        Raises:
            ValueError: Vectors of another width, or a mask that does not fit.
        """
        if bag_values.ndim != 3 or bag_values.shape[-1] != self.dim:
            raise ValueError(f"image_tower 'bags' takes bag_values (B, N, {self.dim}), got {tuple(bag_values.shape)}.")
        dtype = next((p.dtype for p in self.parameters()), torch.float32)
        vectors = bag_values.to(dtype)
        if bag_mask is not None:
            if bag_mask.shape != vectors.shape[:2]:
                shapes = f"a mask of {tuple(bag_mask.shape)} does not fit bags of {tuple(vectors.shape)}"
                raise ValueError(f"image_tower 'bags': {shapes}.")
            # what stands at an absent place may be NaN, which no weight of zero takes away
            vectors = vectors.masked_fill(~bag_mask.bool().unsqueeze(-1), 0)
        features: Features = self.aggregator(self.proj(vectors), bag_mask)
        return features
