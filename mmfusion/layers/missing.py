"""A learned stand-in for a modality that a sample does not have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmfusion.outputs import Features


class MissingModality(nn.Module):
    """Puts a learned token where a sample lacks the modality; the features of the other samples pass bit-equal.

    A zero vector in its place would be a value like any other ("an average image"); a learned token is told apart, and
    attention sees it as the modality's only token (SMIL, Ma et al. 2021, and later work learn such prompts).

    Args:
        dim: width of tokens and pooled vector.
        level_dims: widths of the intermediate levels, where the fusion block reads them; the last is the pooled
            vector's.
        streams: name -> width of the tower's streams. Each is stood in for by the token, or its part of it where the
            tower puts its streams side by side.

    Raises:
        ValueError: streams that are neither as wide as the token nor, side by side, make it up.
    """

    def __init__(self, dim: int, level_dims: Sequence[int] = (), streams: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.streams = dict(streams or {})
        widths = list(self.streams.values())
        if any(width != dim for width in widths) and sum(widths) != dim:
            raise ValueError(f"Streams of widths {widths} are neither {dim} wide each nor together.")
        self.token = nn.Parameter(torch.randn(dim) * 0.02)
        self.has_levels = len(level_dims) > 0
        self.levels = nn.ParameterList([nn.Parameter(torch.randn(d) * 0.02) for d in level_dims[:-1]])

    def forward(self, features: Features, present: Tensor) -> Features:
        """Replace the features of samples that are not present.

        Args:
            features: of a tower; what is None stays None.
            present: (B,) bool.
        """
        row = present.unsqueeze(-1)
        assert features.pooled is not None
        tokens, mask, levels = features.tokens, features.mask, features.levels
        if tokens is not None:
            tokens = torch.where(row.unsqueeze(-1), tokens, self.token.to(tokens.dtype))
            first = torch.arange(tokens.shape[1], device=tokens.device) == 0
            # spelled out, as ONNX Runtime chooses between numbers only
            mask = (row & mask) | (~row & first) if mask is not None else row | first
        if levels is not None:
            levels = tuple(
                torch.where(row, level, missing.to(level.dtype))
                for level, missing in zip(levels, [*self.levels, self.token], strict=True)
            )
        pooled = torch.where(row, features.pooled, self.token.to(features.pooled.dtype))
        streams = features.streams
        if streams is not None:
            missing = self._missing_streams()
            streams = {name: torch.where(row, x, missing[name].to(x.dtype)) for name, x in streams.items()}
        return Features(
            tokens=tokens,
            pooled=pooled,
            mask=mask,
            levels=levels,
            streams=streams,
            gates=features.gates,
            attentions=features.attentions,
        )

    def _missing_streams(self) -> dict[str, Tensor]:
        widths = list(self.streams.values())
        parts = self.token.split(widths) if sum(widths) == len(self.token) else [self.token] * len(widths)
        return dict(zip(self.streams, parts, strict=True))

    def stand_in(self, batch_size: int) -> Features:
        """Features of a batch in which no sample has the modality."""
        return Features(
            tokens=self.token.expand(batch_size, 1, -1),
            pooled=self.token.expand(batch_size, -1),
            mask=torch.ones(batch_size, 1, dtype=torch.bool, device=self.token.device),
            levels=tuple(level.expand(batch_size, -1) for level in [*self.levels, self.token])
            if self.has_levels
            else None,
            streams={name: x.expand(batch_size, -1) for name, x in self._missing_streams().items()} or None,
        )
