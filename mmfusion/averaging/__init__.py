"""Averaging: one model from the weights of several runs.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "METHODS": "soup",
    "Soup": "soup",
    "average_weights": "weights",
    "estimate_batch_norm": "weights",
    "make_soup": "soup",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.averaging.soup import METHODS as METHODS
    from mmfusion.averaging.soup import Soup as Soup
    from mmfusion.averaging.soup import make_soup as make_soup
    from mmfusion.averaging.weights import average_weights as average_weights
    from mmfusion.averaging.weights import estimate_batch_norm as estimate_batch_norm

__getattr__, __dir__ = exports(__name__, _MODULES)
