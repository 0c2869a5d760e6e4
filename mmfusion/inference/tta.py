"""Test-time augmentation: the mean of softmax over views of the same image (systems report, eq. 29-30)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.layers.cropping import centre_crop
from mmfusion.models.fusion_model import class_probabilities
from mmfusion.outputs import FusionOutput

#: batch entries that hold images.
IMAGE_KEYS = ("pixel_values", "roi_values")


#: name -> view of (..., C, H, W) images.
VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(-1),
    "vflip": lambda images: images.flip(-2),
    "rot90": lambda images: torch.rot90(images, 1, (-2, -1)),
    "centre_crop": centre_crop,
}


def views_of(batch: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The batch under each of :data:`VIEWS`; once, as it is, where it holds no images.

    Args:
        batch: keyword tensors of a model; the views apply to ``pixel_values`` and ``roi_values``.
    """
    images = {key: batch[key] for key in IMAGE_KEYS if batch.get(key) is not None}
    for view in VIEWS.values() if images else [VIEWS["identity"]]:
        yield {**batch, **{key: view(value) for key, value in images.items()}}


def tta_probabilities(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Class probabilities averaged over :data:`VIEWS`, then calibrated as the model is.

    Args:
        model: called as ``model(**batch)``, returns ``FusionOutput``.
        batch: keyword tensors of the model.

    Returns:
        (B, C) float32. A batch without images needs, and gets, one pass.
    """
    return calibrated(model, torch.stack([probabilities(model(**view)) for view in views_of(batch)]).mean(dim=0))


def probabilities(output: FusionOutput) -> Tensor:
    """Class probabilities (B, C) of one pass, in float32, not calibrated."""
    assert output.logits is not None
    return output.logits.float().softmax(dim=-1)


def calibrated(model: nn.Module, mean: Tensor) -> Tensor:
    """Probabilities (B, C), averaged over passes where there were several, at the temperature of the model, if any."""
    # the logarithm of probabilities are logits: calibration comes after the mean, and can be undone
    return class_probabilities(model, mean.log()) if getattr(model, "calibration", None) else mean
