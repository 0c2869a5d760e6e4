"""Class-balanced sampling."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler


def balanced_sampler(
    labels: Sequence[Any] | np.ndarray | torch.Tensor, *, seed: int = 0, generator: torch.Generator | None = None
) -> WeightedRandomSampler:
    """Class-balanced sampling with replacement, w_c = 1 / pi_c.

    Args:
        labels: Class names or numbers, one per row.
        seed: Seed of the sampler's generator.
        generator: Generator to use instead of one with ``seed``.

    Returns:
        A sampler that draws ``len(labels)`` rows per epoch.

    Raises:
        ValueError: There are no labels.
    """
    values = np.asarray(labels)
    if values.size == 0:
        raise ValueError("A balanced sampler needs at least one label.")
    _, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    weights = (len(values) / counts)[codes]
    generator = generator if generator is not None else torch.Generator().manual_seed(seed)
    return WeightedRandomSampler(weights.tolist(), num_samples=len(values), replacement=True, generator=generator)
