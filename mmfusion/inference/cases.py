"""Predictions for the labelled rows of a table, with what figures need to know about the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import nn
from tqdm.auto import tqdm

from mmfusion.data import CaseTable, Processor
from mmfusion.inference.ensemble import Ensemble, mean_of, members_of
from mmfusion.inference.stream import AllRows, PredictionWriter, predict_rows

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Predictions:
    """The rows that have a label and could be read, and what the model says about them.

    Attributes:
        frame: those N rows of ``CaseTable.frame``.
        labels: (N,) positions of the true classes.
        probabilities: (N, C) float32.
        unreadable: number of rows left out because they could not be read.
        shares: what router and gates gave each row, name -> (N, n); see
            :func:`~mmfusion.inference.shares.shares_of`. Empty for an ensemble.
    """

    frame: pd.DataFrame
    labels: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    unreadable: int
    shares: dict[str, NDArray[np.float32]]

    @property
    def groups(self) -> NDArray[np.str_]:
        """(N,) the group of each row (patient, lesion); a row without one is its own."""
        groups = self.frame["group"].items()
        return np.array([f"row {row}" if group is None else f"group {group}" for row, group in groups], dtype=np.str_)


def predict_cases(
    model: nn.Module | Ensemble,
    processor: Processor,
    cases: CaseTable,
    *,
    output: str | Path | None = None,
    on_bad_row: str = "fail",
    batch_size: int = 64,
    description: str = "Evaluating",
    open_rows: Callable[[CaseTable], Any] | None = None,
    **inference: Any,
) -> Predictions:
    """Predict all rows of a table, and keep those that figures can be taken on.

    Args:
        model: a ``FusionModel``, an ``OnnxModel``, or an :class:`~mmfusion.inference.ensemble.Ensemble`.
        processor: the model's processor; the members of an ensemble have their own.
        cases: the rows; those without a label are predicted, and left out of the result.
        output: CSV file for the predictions of all rows; None writes none.
        on_bad_row: ``fail`` stops at a row that cannot be read; ``skip`` leaves it out.
        batch_size: rows per step.
        description: what the progress bar says.
        open_rows: makes the data set of sound rows, e.g. of cached features; None encodes them with the processor.
        inference: further keywords of :func:`~mmfusion.inference.stream.predict_rows`, e.g. ``tta=True``.

    Raises:
        ValueError: a row cannot be read and ``on_bad_row`` is ``fail``.
    """
    if on_bad_row not in ("fail", "skip"):
        raise ValueError(f"on_bad_row is 'fail' or 'skip', not {on_bad_row!r}.")
    names = list(processor.labels)
    members = members_of(model, processor)
    read = [AllRows(cases, member.processor, open_rows=open_rows) for member in members]
    rows = read[0]
    truth = [names[label] if label >= 0 else "" for label in rows.labels]
    probabilities = np.empty((len(rows), len(names)), dtype=np.float32)
    errors: list[str | None] = []
    shares: dict[str, NDArray[np.float32]] = {}
    writer = PredictionWriter(output, names, true_labels=True) if output else None
    with writer or nullcontext(), tqdm(total=len(rows), desc=description, unit="row", disable=None) as bar:
        streams = [
            predict_rows(member.model, own, own.collate, num_classes=len(names), batch_size=batch_size, **inference)
            for member, own in zip(members, read, strict=True)
        ]
        for part in mean_of(streams):
            here = slice(part.start, part.start + len(part.errors))
            if on_bad_row == "fail":
                _refuse(part.errors, rows.ids[here])
            probabilities[here] = part.probabilities
            errors += part.errors
            for name, values in part.shares.items():
                shares.setdefault(name, np.full((len(rows), values.shape[1]), np.nan, dtype=np.float32))[here] = values
            if writer:
                writer.write(rows.ids[here], part, truth[here])
            bar.update(len(part.errors))
    readable = np.array([error is None for error in errors], dtype=bool)
    used = readable & (rows.labels >= 0)
    return Predictions(
        cases.frame[used],
        rows.labels[used],
        probabilities[used],
        int((~readable).sum()),
        {name: values[used] for name, values in shares.items()},
    )


def _refuse(errors: Sequence[str | None], ids: Sequence[str]) -> None:
    for row, error in zip(ids, errors, strict=True):
        if error is not None:
            raise ValueError(
                f"Row {row} cannot be evaluated: {error}; mend it, or leave it out with --on-bad-row skip."
            )
