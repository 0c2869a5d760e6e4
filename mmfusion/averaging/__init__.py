"""Averaging: one model from the weights of several runs."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.averaging.soup import METHODS as METHODS, Soup as Soup, make_soup as make_soup
    from mmfusion.averaging.weights import (
        average_weights as average_weights,
        estimate_batch_norm as estimate_batch_norm,
    )

__getattr__, __dir__ = attach(__name__)
