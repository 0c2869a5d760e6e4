"""What every fusion block has in common."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from torch import nn

from mmfusion.outputs import Features, Fused


class FusionBlock(nn.Module):
    """Two modalities in, one representation out.

    A block of your own needs no more than ``__init__(image_dim, text_dim, dim)`` and ``forward(image, text)``; deriving
    from this class declares what it reads and how wide its output is.

    Attributes:
        reads_levels: True when the block reads ``Features.levels``; the towers then return them.
        num_features: width of ``Fused.pooled``.
        token_features: width of ``Fused.tokens``; None where the block makes none, or makes them ``num_features`` wide.
        side_dims: widths of ``Fused.image`` and ``Fused.text``, which the auxiliary heads classify.
    """

    reads_levels: ClassVar[bool] = False
    token_features: int | None = None

    def __init__(self, num_features: int, side_dims: tuple[int, int]) -> None:
        super().__init__()
        self.num_features = num_features
        self.side_dims = side_dims

    @abstractmethod
    def forward(self, image: Features, text: Features) -> Fused:
        """Fuse the features of both towers."""
