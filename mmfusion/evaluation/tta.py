"""Test-time augmentation: the mean of softmax over views of the same image (systems report, eq. 29-30)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mmfusion.layers.cropping import centre_crop
from mmfusion.models.fusion_model import class_probabilities

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


def tta_probabilities(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Class probabilities averaged over :data:`VIEWS`, then calibrated as the model is.

    Args:
        model: called as ``model(**batch)``, returns ``FusionOutput``.
        batch: keyword tensors of the model; the views apply to ``pixel_values`` and ``roi_values``.

    Returns:
        (B, C) float32. A batch without images needs, and gets, one pass.
    """
    images = {key: batch[key] for key in IMAGE_KEYS if batch.get(key) is not None}
    views = VIEWS.values() if images else [VIEWS["identity"]]
    passes = [
        model(**{**batch, **{k: view(v) for k, v in images.items()}}).logits.float().softmax(dim=-1) for view in views
    ]
    mean = torch.stack(passes).mean(dim=0)
    # the logarithm of probabilities are logits: calibration comes after the mean, and can be undone
    return class_probabilities(model, mean.log()) if getattr(model, "calibration", None) else mean


def probabilities(model: nn.Module, batch: Mapping[str, Any]) -> Tensor:
    """Class probabilities (B, C) of one pass, calibrated as the model is, in float32."""
    return class_probabilities(model, model(**batch).logits)
