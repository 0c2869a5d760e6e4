"""Mixup and CutMix: pairs of images in a batch are blended or pasted, and their losses mixed accordingly."""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """A batch with mixed images.

    Attributes:
        pixel_values: (B, 3, H, W).
        partner: (B,) index of the sample that each one was mixed with.
        share: (B,) weight of each sample's own label, in [0, 1].
    """

    pixel_values: Tensor
    partner: Tensor
    share: float


@dataclass(frozen=True)
class Mixing:
    """Mixes batches; the draw depends only on seed and step, so all batches and processes of a step draw alike.

    Each image is mixed with its counterpart in reverse order among those present; texts and columns stay unmixed. If
    both methods are enabled, each batch uses one of them with equal probability.

    Attributes:
        mixup: Alpha of the Beta(alpha, alpha) distribution of the weights (Zhang et al. 2018); None disables it.
        cutmix: Alpha for the areas (Yun et al. 2019); None disables it.
        seed: Seed of the run.
    """

    mixup: float | None
    cutmix: float | None
    seed: int

    def __call__(self, inputs: dict[str, Tensor], step: int) -> Mixed:
        """Mix the images of a collated batch.

        Raises:
            ValueError: There are several images per sample, or a region of interest.
        """
        pixels = inputs.get("pixel_values")
        if pixels is None or pixels.ndim != 4 or "roi_values" in inputs:
            raise ValueError("train.mixup and train.cutmix need single images; set them to null for other inputs.")
        rng = random.Random(f"mixing {self.seed}/{step}")
        partner = torch.arange(len(pixels), device=pixels.device)
        there = partner[inputs["image_present"]] if "image_present" in inputs else partner.clone()
        partner[there] = there.flip(0)
        alphas = {cut: alpha for cut, alpha in ((False, self.mixup), (True, self.cutmix)) if alpha is not None}
        cut = rng.choice(list(alphas))
        share = rng.betavariate(alphas[cut], alphas[cut])
        if not cut:
            return Mixed(pixels * share + pixels[partner] * (1 - share), partner, share)
        top, bottom, left, right = _box(pixels.shape[2], pixels.shape[3], 1 - share, rng)
        mixed = pixels.clone()
        mixed[:, :, top:bottom, left:right] = pixels[partner, :, top:bottom, left:right]
        return Mixed(mixed, partner, 1 - (bottom - top) * (right - left) / (pixels.shape[2] * pixels.shape[3]))


def _box(height: int, width: int, area: float, rng: random.Random) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a box with this share of the area, clipped to the image."""
    edges: list[int] = []
    for side in (height, width):
        centre, half = rng.uniform(0, side), side * math.sqrt(area) / 2
        edges += [round(max(centre - half, 0)), round(min(centre + half, side))]
    return edges[0], edges[1], edges[2], edges[3]
