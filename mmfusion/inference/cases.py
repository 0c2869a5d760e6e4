"""Predictions for the labelled rows of a table, with what metrics need to know about the rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfusion.data import CaseTable
from mmfusion.inference.stream import Prediction

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """The rows that have a label and could be read, and what the model says about them.

    Attributes:
        frame: Those N rows of ``CaseTable.frame``.
        labels: (N,) positions of the true classes.
        probabilities: (N, C) float32, calibrated where the model is.
        uncalibrated: (N, C) float32, as the network gives them.
        unreadable: Number of rows left out because they could not be read.
        shares: What router and gates gave each row, name -> (N, n); see
            :func:`~mmfusion.inference.shares.shares_of`. Empty for an ensemble.
        familiarity: Modality -> (N,), NaN where a row lacks it; empty where the model does not know.
    """

    frame: pd.DataFrame
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    uncalibrated: NDArray[np.float32]
    unreadable: int
    shares: dict[str, NDArray[np.float32]]
    familiarity: dict[str, NDArray[np.float32]] = field(default_factory=dict)

    @property
    def groups(self) -> NDArray[np.str_]:
        """(N,) the group of each row (patient, lesion); a row without one is its own."""
        groups = self.frame["group"].items()
        return np.array([f"row {row}" if group is None else f"group {group}" for row, group in groups], dtype=np.str_)


def kept(cases: CaseTable, labels: NDArray[np.int64], parts: Sequence[Prediction], num_classes: int) -> Predictions:
    """The predictions of the rows that have a label and could be read."""
    readable = np.array([error is None for part in parts for error in part.errors], dtype=bool)
    used = readable & (labels >= 0)
    shares: dict[str, NDArray[np.float32]] = {}
    for part in parts:
        for name, values in part.shares.items():
            whole = shares.setdefault(name, np.full((len(labels), values.shape[1]), np.nan, dtype=np.float32))
            whole[part.rows] = values
    nothing = np.empty((0, num_classes), dtype=np.float32)
    return Predictions(
        cases.frame[used],
        labels[used],
        np.concatenate([nothing, *(part.probabilities for part in parts)])[used],
        np.concatenate([nothing, *(part.uncalibrated for part in parts)])[used],
        int((~readable).sum()),
        {name: values[used] for name, values in shares.items()},
        {name: values[used] for name, values in familiarity_of(parts).items()},
    )


def familiarity_of(parts: Sequence[Prediction]) -> dict[str, NDArray[np.float32]]:
    """Modality -> how familiar each row of all parts is; a part without any readable row says nothing of its own."""
    nothing = [np.full(len(part.errors), np.nan, dtype=np.float32) for part in parts]
    return {
        name: np.concatenate([part.familiarity.get(name, blank) for part, blank in zip(parts, nothing, strict=True)])
        for name in dict.fromkeys(name for part in parts for name in part.familiarity)
    }
