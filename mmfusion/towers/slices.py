"""Tower for studies of slices: a 2D backbone per slice, then an aggregator; optionally a 2.5D stem."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from mmfusion import registry
from mmfusion.names import check_choice
from mmfusion.outputs import Features
from mmfusion.registry import register
from mmfusion.towers.several import SeveralTower, build_without_levels, each_present

#: Rec. 601 weights of red, green and blue in the luminance.
LUMINANCE = (0.299, 0.587, 0.114)


def neighbours(mask: Tensor, mode: str = "replicate") -> tuple[Tensor, Tensor]:
    """Positions of the nearest present slices before and after each slice.

    For a mask without gaps this is :func:`mmfusion.data.neighbour_slices`.

    Args:
        mask: (B, S) bool, True where a slice is present.
        mode: At the ends, ``replicate`` takes the slice itself, ``mirror`` the present slice on its other side.

    Returns:
        Two (B, S) int64 tensors. Values at absent slices are arbitrary valid positions.
    """
    count = mask.shape[1]
    place = torch.arange(count, device=mask.device)
    here = place.expand(mask.shape)
    # compare all pairs of positions: a study has few slices, and ONNX has no cumulative maximum
    earlier, later = place < place[:, None], place > place[:, None]
    before = torch.where(mask[:, None] & earlier, place, -1).amax(dim=2)
    after = torch.where(mask[:, None] & later, place, count).amin(dim=2)
    is_first, is_last = before < 0, after == count
    at_first, at_last = (after, before) if mode == "mirror" else (here, here)
    before, after = torch.where(is_first, at_first, before), torch.where(is_last, at_last, after)
    # a lone slice has no neighbor to mirror
    alone = is_first & is_last
    return torch.where(alone, here, before), torch.where(alone, here, after)


class Stem25D(nn.Module):
    """2.5D stem: previous, this and next slice as the three channels of each slice.

    Each neighboring slice is converted to luminance and normalized with that channel's mean and std. For grayscale
    inputs this matches the original channel up to rounding.

    Args:
        mean: (3,) mean that the images were normalized with.
        std: (3,) std that the images were normalized with.
        mode: At the ends, ``replicate`` or ``mirror``.

    Raises:
        ValueError: An unknown mode.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, mean: Sequence[float], std: Sequence[float], mode: Literal["replicate", "mirror"] = "replicate"
    ) -> None:
        super().__init__()
        check_choice("stem_mode", mode, ("replicate", "mirror"))
        self.mode = mode
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        """(B, S, 3, H, W) and mask (B, S) -> (B, S, 3, H, W)."""
        weights = images.new_tensor(LUMINANCE).view(3, 1, 1)
        grey = ((images * self.std + self.mean) * weights).sum(dim=2)
        before, after = (grey.gather(1, i[..., None, None].expand_as(grey)) for i in neighbours(mask, self.mode))
        return (torch.stack([before, grey, after], dim=2) - self.mean) / self.std


@register("image_tower", "slices")
class SlicesTower(SeveralTower):
    """Several slices per sample: one 2D backbone for all of them, then an aggregator over their vectors.

    f_t = CNN(S_t), then BiLSTM, Transformer, state space, attention or mean over t; with ``stem="2.5d"`` each slice has
    its neighbors as channels. Studies may differ in length: ``slice_mask`` marks the present slices, and an absent
    slice affects neither the result nor BatchNorm statistics.

    Args:
        aggregator: Name of the aggregator.
        aggregator_args: Keywords of the aggregator.
        stem: ``2.5d``, or None.
        stem_mode: Neighbors of the end slices: ``replicate`` or ``mirror``.

    Raises:
        ValueError: Levels are requested, or an unknown stem, mode or aggregator.
        TypeError: The aggregator has no such keyword.
    """

    layout = "slices"
    masks = ("slice_mask",)
    free: ClassVar[Mapping[str, str]] = {"pixel_values": "images", "slice_mask": "images"}
    padded = ("vectors", "mask")

    def __init__(
        self,
        encoder: str,
        weights: str | None = None,
        num_levels: int = 0,
        aggregator: str = "mean",
        aggregator_args: dict[str, Any] | None = None,
        stem: str | None = None,
        stem_mode: Literal["replicate", "mirror"] = "replicate",
        **timm_args: Any,
    ) -> None:
        check_choice("stem", stem, (None, "2.5d"))
        super().__init__(build_without_levels("slices", encoder, weights, num_levels, **timm_args))
        norm = self.pretrained_cfg
        self.stem = Stem25D(norm["mean"], norm["std"], stem_mode) if stem else None
        self.aggregator = registry.create(
            "aggregator", aggregator, in_features=self.backbone.num_features, **(aggregator_args or {})
        )
        self.num_features = self.aggregator.num_features

    def encode(self, pixel_values: Tensor, slice_mask: Tensor | None = None) -> dict[str, Tensor]:
        """Slices (B, S, 3, H, W), or (B, 3, H, W) as one slice each -> ``vectors`` (B, S, D) and ``mask`` (B, S).

        Raises:
            ValueError: Shapes do not match.
        """
        images, mask = self.as_sequence(pixel_values, slice_mask)
        if self.stem is not None:
            images = self.stem(images, mask)
        (vectors,) = each_present(lambda x: (self.backbone(x).pooled,), images, mask, self.backbone)
        return {"vectors": vectors, "mask": mask}

    def assemble(self, encoded: Mapping[str, Tensor]) -> Features:
        """Result of :meth:`encode` -> tokens, pooled (B, num_features), mask."""
        features: Features = self.aggregator(encoded["vectors"], encoded["mask"])
        return features
