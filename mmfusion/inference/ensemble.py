"""Several models that answer as one: the mean of their calibrated probabilities (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from mmfusion.inference.stream import Prediction


def mean_of(streams: Sequence[Iterator[Prediction]]) -> Iterator[Prediction]:
    """The mean of several models' calibrated predictions of the same rows; of one stream the stream itself.

    A row that one of the models cannot read has that model's error: the mean of the others would be another ensemble.
    Shares of routers and gates are those of one model, and are left out.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    for parts in zip(*streams, strict=True):
        errors = [next((e for e in row if e is not None), None) for row in zip(*(p.errors for p in parts), strict=True)]
        mean = np.stack([part.probabilities for part in parts]).mean(axis=0, dtype=np.float64)
        with np.errstate(divide="ignore"):  # a probability of 0
            yield Prediction(parts[0].start, np.log(mean).astype(np.float32), errors)
