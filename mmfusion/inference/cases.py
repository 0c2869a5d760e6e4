"""Predictions for the labeled rows of a table, with the data that metrics need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.data import CaseTable
from mmfusion.inference.stream import Prediction
from mmfusion.task import Task

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """The labeled, readable rows and the model's predictions.

    Attributes:
        frame: The N rows of ``CaseTable.frame``.
        labels: (N,) true class indices; for other tasks (N, ...).
        probabilities: (N, C) float32, calibrated if the model is; for other tasks the answers (N, A).
        uncalibrated: (N, C) float32 before calibration.
        unreadable: Number of rows skipped because they could not be read.
        shares: Router and gate values per row, name -> (N, n); see
            :func:`~mmfusion.inference.shares.shares_of`. Empty for an ensemble.
        familiarity: Modality -> (N,), NaN for rows without it; empty if the model has no detector.
        scores: (N, S) float32 inputs of the calibration; empty if there are none.
    """

    frame: pd.DataFrame
    labels: NDArray[Any]
    probabilities: NDArray[np.float32]
    uncalibrated: NDArray[np.float32]
    unreadable: int
    shares: dict[str, NDArray[np.float32]]
    familiarity: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    scores: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))

    @property
    def groups(self) -> NDArray[np.str_]:
        """(N,) group of each row (patient, lesion); a row without one is its own group."""
        groups = self.frame["group"].items()
        return np.array([f"row {row}" if group is None else f"group {group}" for row, group in groups], dtype=np.str_)


def kept(cases: CaseTable, labels: NDArray[Any], parts: Sequence[Prediction], task: Task) -> Predictions:
    """The predictions of labeled, readable rows."""
    readable = np.array([error is None for part in parts for error in part.errors], dtype=bool)
    used = readable & task.known(labels)
    shares: dict[str, NDArray[np.float32]] = {}
    for part in parts:
        for name, values in part.shares.items():
            whole = shares.setdefault(name, np.full((len(labels), values.shape[1]), np.nan, dtype=np.float32))
            whole[part.rows] = values
    nothing = [np.empty((0, width), dtype=np.float32) for width in (len(task.answer_columns), task.size)]
    return Predictions(
        cases.frame[used],
        labels[used],
        np.concatenate([nothing[0], *(part.probabilities for part in parts)])[used],
        np.concatenate([nothing[0], *(part.uncalibrated for part in parts)])[used],
        int((~readable).sum()),
        {name: values[used] for name, values in shares.items()},
        {name: values[used] for name, values in familiarity_of(parts).items()},
        np.concatenate([nothing[1], *(part.scores for part in parts)])[used],
    )


def familiarity_of(parts: Sequence[Prediction]) -> dict[str, NDArray[np.float32]]:
    """Modality -> familiarity of each row over all parts; parts without readable rows are filled with NaN."""
    nothing = [np.full(len(part.errors), np.nan, dtype=np.float32) for part in parts]
    return {
        name: np.concatenate([part.familiarity.get(name, blank) for part, blank in zip(parts, nothing, strict=True)])
        for name in dict.fromkeys(name for part in parts for name in part.familiarity)
    }
