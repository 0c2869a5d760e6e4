"""Precision of sums and exponentials."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Half precision in single; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
