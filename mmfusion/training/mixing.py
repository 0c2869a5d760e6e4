"""Mixed pictures: two of a batch in one, by shares (mixup) or by area (CutMix); their losses are mixed alike."""

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Mixed:
    """A batch whose pictures were mixed.

    Attributes:
        pixel_values: (B, 3, H, W).
        partner: (B,) position of the sample that each one was mixed with.
        share: What each sample keeps of its own label, in [0, 1].
    """

    pixel_values: Tensor
    partner: Tensor
    share: float


@dataclass(frozen=True)
class Mixing:
    """Draws how a batch is mixed, from the seed and the step alone: batches and processes of one step draw alike.

    Each picture is mixed with its mirror in the order of those that are there; text, columns and the like stay the
    sample's own. Where both are on, each batch takes one of them, as often as the other.

    Attributes:
        mixup: alpha of the Beta(alpha, alpha) distribution of the shares (Zhang et al. 2018); None is off.
        cutmix: Likewise, of the areas (Yun et al. 2019).
        seed: Of the run.
    """

    mixup: float | None
    cutmix: float | None
    seed: int

    def __call__(self, inputs: dict[str, Tensor], step: int) -> Mixed:
        """Mix the pictures of a collated batch.

        Raises:
            ValueError: Several images per sample, or a region of interest beside the image.
        """
        pixels = inputs.get("pixel_values")
        if pixels is None or pixels.ndim != 4 or "roi_values" in inputs:
            raise ValueError("train.mixup and train.cutmix mix single images: set them to null for other inputs.")
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
    """Top, bottom, left and right of a box of this share of the area, as far as the picture reaches."""
    edges: list[int] = []
    for side in (height, width):
        centre, half = rng.uniform(0, side), side * math.sqrt(area) / 2
        edges += [round(max(centre - half, 0)), round(min(centre + half, side))]
    return edges[0], edges[1], edges[2], edges[3]
