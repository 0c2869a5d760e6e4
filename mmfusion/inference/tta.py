"""Test-time augmentation: mean probabilities over views of the same image."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmfusion.layers.cropping import centre_crop

#: Batch entries with images.
IMAGE_KEYS = ("pixel_values", "roi_values")

#: Name -> view of (..., C, H, W) images.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(-1),
    "vflip": lambda images: images.flip(-2),
    "rot90": lambda images: torch.rot90(images, 1, (-2, -1)),
    "centre_crop": centre_crop,
}


def views_of(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The batch with its images under each of :data:`VIEWS`; once if it has no images."""
    images = {key: batch[key] for key in IMAGE_KEYS if batch.get(key) is not None}
    for view in VIEWS.values() if images else [VIEWS["identity"]]:
        yield {**batch, **{key: view(value) for key, value in images.items()}}


def mean_log_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Log of the mean softmax over passes, in float32 (B, C): ``log(1/n sum_i softmax(logits_i))``.

    The temperature is applied to this mean (Ashukha et al., Pitfalls of In-Domain Uncertainty Estimation and Ensembling
    in Deep Learning, ICLR 2020).

    Args:
        logits: (B, C) of each pass.
    """
    passes = torch.stack([each.float().log_softmax(dim=-1) for each in logits])
    return passes[0] if len(passes) == 1 else passes.logsumexp(dim=0) - math.log(len(passes))
