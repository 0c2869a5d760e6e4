"""Crops of image tensors."""

from torch import Tensor
from torch.nn import functional as F


def centre_crop(images: Tensor, share: float = 0.875) -> Tensor:
    """Center crop of (..., C, H, W) images, ``share`` of each side, resized to the full size (bilinear)."""
    height, width = images.shape[-2:]
    h, w = max(1, round(height * share)), max(1, round(width * share))
    top, left = (height - h) // 2, (width - w) // 2
    centre = images[..., top : top + h, left : left + w]
    pictures = centre.reshape(-1, *centre.shape[-3:])
    resized = F.interpolate(pictures, size=(height, width), mode="bilinear", align_corners=False)
    return resized.view(images.shape)
