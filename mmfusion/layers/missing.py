"""Learned features for missing modalities."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mmfusion.outputs import Features


class MissingModality(nn.Module):
    """Replaces the features of samples without the modality by a learned token; other samples pass unchanged.

    A zero vector would look like an ordinary input (an average image); a learned token can be distinguished from all
    inputs (as in SMIL, Ma et al. 2021). Attention sees it as the only token of the modality.

    Args:
        dim: Width of tokens and pooled vector.
        level_dims: Widths of the intermediate levels, if the fusion block reads them; the last is that of the pooled
            vector.
        streams: name -> width of the tower's streams. The token replaces each of them or, if the tower concatenates its
            streams, its part of the token does.

    Raises:
        ValueError: The streams have neither the width of the token nor that width in total.
    """

    def __init__(self, dim: int, level_dims: Sequence[int] = (), streams: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.streams = dict(streams or {})
        widths = list(self.streams.values())
        if any(width != dim for width in widths) and sum(widths) != dim:
            raise ValueError(
                f"Streams of widths {widths}: each must have width {dim} (num_features), or all of them together."
            )
        self.token = nn.Parameter(torch.randn(dim) * 0.02)
        self.has_levels = len(level_dims) > 0
        self.levels = nn.ParameterList([nn.Parameter(torch.randn(d) * 0.02) for d in level_dims[:-1]])

    def forward(self, features: Features, present: Tensor) -> Features:
        """Replace the features of samples that are not present.

        Args:
            features: Output of a tower; fields that are None stay None.
            present: (B,) bool.
        """
        row = present.unsqueeze(-1)

        def put(x: Tensor, missing: Tensor) -> Tensor:
            return torch.where(row if x.ndim == 2 else row.unsqueeze(-1), x, missing.to(x.dtype))

        changes: dict[str, object] = {"pooled": put(features.pooled, self.token)}
        if features.tokens is not None:
            changes["tokens"] = put(features.tokens, self.token)
            first = torch.arange(features.tokens.shape[1], device=row.device) == 0
            # written as logic, because ONNX Runtime's Where supports only numbers
            changes["mask"] = row | first if features.mask is None else (row & features.mask) | (~row & first)
        if features.levels is not None:
            tokens = (*self.levels, self.token)
            changes["levels"] = tuple(put(x, m) for x, m in zip(features.levels, tokens, strict=True))
        if features.streams is not None:
            missing = self._missing_streams()
            changes["streams"] = {name: put(x, missing[name]) for name, x in features.streams.items()}
        return features.replace(**changes)

    def _missing_streams(self) -> dict[str, Tensor]:
        widths = list(self.streams.values())
        parts = self.token.split(widths) if sum(widths) == len(self.token) else [self.token] * len(widths)
        return dict(zip(self.streams, parts, strict=True))

    def stand_in(self, batch_size: int) -> Features:
        """Features of a batch in which no sample has the modality."""
        alone = Features(
            tokens=self.token.unsqueeze(0),
            pooled=self.token,
            mask=torch.ones(1, dtype=torch.bool, device=self.token.device),
            levels=(*self.levels, self.token) if self.has_levels else None,
            streams=self._missing_streams() or None,
        )
        return alone.map(lambda x: x.expand(batch_size, *x.shape))
