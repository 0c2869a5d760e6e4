"""Operations on masked token sequences: compacting, averaging, scattering."""

import torch
from torch import Tensor


def compact(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Move the real tokens to the front, in order, so that layers over neighbors see no gaps.

    Args:
        x: (B, L, D).
        mask: (B, L) bool, True where a token is real.

    Returns:
        The tokens in the new order (B, L, D), with zeros after the real ones; their mask (B, L), True up to the number
        of real tokens; and the new position (B, L) of each token: ``take(result, position)`` undoes the move.
    """
    index = torch.arange(mask.shape[1], device=mask.device)
    count = mask.sum(dim=1, keepdim=True)
    place = torch.where(mask, mask.cumsum(dim=1), count + mask.logical_not().cumsum(dim=1)) - 1
    order = torch.zeros_like(place).scatter(1, place, index.expand_as(place))
    front = index < count
    return take(x, order).masked_fill(~front.unsqueeze(-1), 0), front, place


def take(x: Tensor, index: Tensor) -> Tensor:
    """Gather tokens of x (B, L, D) by an index (B, L) per sample."""
    return x.gather(1, index.unsqueeze(-1).expand(-1, -1, x.shape[-1]))


def masked_mean(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean over the real tokens: (B, N, D), mask (B, N) bool -> (B, D). A row without real tokens gives zeros."""
    if mask is None:
        return tokens.mean(dim=1)
    weights = mask.to(tokens.dtype).unsqueeze(-1)
    return (tokens * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)


def spread(x: Tensor, mask: Tensor) -> Tensor:
    """Scatter the rows of x (N, ...) to the N True positions of a mask (B,) or (B, S); zeros elsewhere."""
    places = mask.view(*mask.shape, *[1] * (x.ndim - 1))
    return x.new_zeros(*mask.shape, *x.shape[1:]).masked_scatter(places, x)
