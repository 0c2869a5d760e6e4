"""Tower for a whole image and a region of it: two streams, combined by a weight, a gate or side by side."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mmfusion.layers.cropping import centre_crop
from mmfusion.names import check_choice
from mmfusion.outputs import Features
from mmfusion.registry import register
from mmfusion.towers.image import TimmTower
from mmfusion.towers.several import build_without_levels


@register("image_tower", "global_local")
class GlobalLocalTower(TimmTower):
    """Whole image (context) and region of interest (lesion) as two streams.

    ========== ====================================================================================
    weighted   F = lambda F_global + (1 - lambda) F_local, lambda = sigmoid of one learned number
    mean       the same with lambda = 1/2, for heads that weigh the streams themselves
    concat     F = [F_global; F_local]
    gated      F = z * F_global + (1 - z) * F_local, z = sigmoid(W [F_global; F_local]) per dimension
    ========== ====================================================================================

    The tokens are the map positions of both streams, with the weights of the streams; with ``concat``, each token is
    concatenated with the other stream's pooled vector.

    Args:
        shared: Use one backbone for both streams instead of two.
        combine: How to combine the streams; see the table.
        crop: Share of each side of the center crop that replaces a missing region, in (0, 1].

    Raises:
        ValueError: Levels are requested, or a keyword is out of range.
    """

    def __init__(
        self,
        encoder: str,
        weights: str | None = None,
        num_levels: int = 0,
        shared: bool = True,
        combine: Literal["weighted", "mean", "concat", "gated"] = "weighted",
        crop: float = 0.5,
        **timm_args: Any,
    ) -> None:
        check_choice("combine", combine, ("weighted", "mean", "concat", "gated"))
        if not 0 < crop <= 1:
            raise ValueError(f"crop={crop} is not in (0, 1].")
        whole, *local = (
            build_without_levels("global_local", encoder, weights, num_levels, **timm_args) for _ in range(2 - shared)
        )
        super().__init__(nn.ModuleDict({"global": whole, "local": local[0]}) if local else whole)
        self.shared, self.combine, self.crop = shared, combine, crop
        width = whole.num_features
        self.num_features = 2 * width if combine == "concat" else width
        self.streams = {"global": width, "local": width}
        self.stream_features = width
        self.weight = nn.Parameter(torch.zeros(1)) if combine == "weighted" else None
        self.gate = nn.Linear(2 * width, width) if combine == "gated" else None

    def encode(self, pixel_values: Tensor, roi_values: Tensor | None = None) -> dict[str, Tensor]:
        """Whole image and region -> ``<stream>_tokens`` (B, N, D) and ``<stream>_pooled`` (B, D) of both streams.

        Args:
            pixel_values: (B, 3, H, W) normalized.
            roi_values: (B, 3, h, w) normalized; None uses the center of ``pixel_values``.

        Raises:
            ValueError: Several images per sample.
        """
        if pixel_values.ndim != 4:
            raise ValueError(
                f"image_tower 'global_local' takes pixel_values (B, 3, H, W), got {tuple(pixel_values.shape)}."
            )
        encoded: dict[str, Tensor] = {}
        for name, images in self.pictures({"pixel_values": pixel_values, "roi_values": roi_values}).items():
            features = (self.backbone if self.shared else self.backbone[name])(images)
            encoded |= {f"{name}_tokens": features.tokens, f"{name}_pooled": features.pooled}
        return encoded

    def assemble(self, encoded: Mapping[str, Tensor]) -> Features:
        """Result of :meth:`encode` -> tokens (B, N, D), pooled (B, D), streams, gates.

        Returns:
            ``streams`` are ``global`` and ``local``, as wide as the backbone; ``gates["global"]`` (B, 1) or (B, D) is
            the share of the whole image (none under ``concat``).
        """
        streams = {name: encoded[f"{name}_pooled"] for name in self.streams}
        whole, region = streams.values()
        whole_tokens, region_tokens = encoded["global_tokens"], encoded["local_tokens"]
        if self.combine == "concat":
            joined = torch.cat([_beside(whole_tokens, region), _beside(whole, region_tokens)], dim=1)
            return Features(joined, torch.cat([whole, region], dim=-1), streams=streams)
        share = self._share(whole, region)
        total = whole_tokens.shape[1] + region_tokens.shape[1]
        tokens = [
            weight.unsqueeze(1) * stream * (total / stream.shape[1])
            for weight, stream in ((share, whole_tokens), (1 - share, region_tokens))
        ]
        pooled = share * whole + (1 - share) * region
        return Features(torch.cat(tokens, dim=1), pooled, streams=streams, gates={"global": share})

    @classmethod
    def complete(cls, inputs: dict[str, Tensor], args: Mapping[str, Any]) -> dict[str, Tensor]:
        """Add the default region if none is given."""
        return {"roi_values": centre_crop(inputs["pixel_values"], args["crop"]), **inputs}

    def pictures(self, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
        """The whole image, and the region given or cropped."""
        inputs = self.complete(self.select(inputs), {"crop": self.crop})
        return {"global": inputs["pixel_values"], "local": inputs["roi_values"]}

    def example(
        self, present: Tensor, *, count: int, image_size: int | None, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """A random image and a random region per sample."""
        whole = super().example(present, count=count, image_size=image_size, generator=generator)
        region = self.noise(torch.ones_like(present), (3, image_size, image_size), generator)
        return {**whole, "roi_values": region}

    def _share(self, whole: Tensor, region: Tensor) -> Tensor:
        """Share of the whole image, (B, 1) or (B, D)."""
        if self.gate is not None:
            return self.gate(torch.cat([whole, region], dim=-1)).sigmoid()
        share = whole.new_full((1,), 0.5) if self.weight is None else self.weight.sigmoid().to(whole.dtype)
        return share.expand(whole.shape[0], 1)


def _beside(left: Tensor, right: Tensor) -> Tensor:
    """[left; right] of tokens (B, N, D) and one vector per sample (B, D), in either order."""
    count = left.shape[1] if left.ndim == 3 else right.shape[1]
    sides = [x if x.ndim == 3 else x.unsqueeze(1).expand(-1, count, -1) for x in (left, right)]
    return torch.cat(sides, dim=-1)
