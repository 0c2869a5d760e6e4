"""Precision of sums and exponentials."""

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 are unchanged."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
