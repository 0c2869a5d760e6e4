"""Figures of parts of the rows: each value of a metadata column, numbers in bands."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.files import write_frame
from mmfusion.names import did_you_mean
from mmfusion.results import Subgroup
from mmfusion.task import Task

#: a subgroup of fewer rows than this is named small: its figures are a matter of chance.
SMALL = 50

#: a column of more texts than this names rows, not subgroups.
MOST = 50

#: numbers of more different values than this are put in bands.
FEW_NUMBERS = 5

MISSING = "(missing)"

#: of an interval -> what the columns of its ends are called.
ENDS = {"value": "", "low": "_low", "high": "_high"}


def subgroup_figures(
    frame: pd.DataFrame,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    groups: NDArray[Any],
    columns: Sequence[str],
    task: Task | None = None,
    **bootstrap: Any,
) -> dict[str, list[Subgroup]]:
    """All metrics of each subgroup, with intervals.

    Args:
        frame: N rows of ``CaseTable.frame``.
        labels: (N,) positions of the true classes.
        probabilities: (N, C).
        groups: (N,) what the bootstrap draws as a whole.
        columns: names of metadata columns. Numbers go into thirds of the rows; ``age:10`` puts them into bands of ten.
        task: Whose labels and answers they are; None takes those of ``multiclass``.
        bootstrap: ``replicates``, ``level`` and ``seed`` of :func:`~mmfusion.evaluation.intervals.metric_intervals`.

    Returns:
        Column -> its subgroups in order. Rows without a value are a subgroup too; one of fewer than :data:`SMALL` rows
        is marked.

    Raises:
        ValueError: no such column, a band width for texts, or a column with a text for nearly every row.
    """
    result: dict[str, list[Subgroup]] = {}
    for wanted in columns:
        column, _, width = wanted.partition(":")
        if column not in frame.columns:
            raise ValueError(f"The data have no column {column!r}; {did_you_mean(column, [*frame.columns])}")
        values = frame[column].map(str, na_action="ignore")
        names, of_row = _banded(column, values, width) if _numeric(values, width) else _named(column, values, width)
        result[column] = []
        for name in names:
            here = np.array([value == name for value in of_row])
            n, among, classes = int(here.sum()), len(np.unique(groups[here])), _classes(labels[here], task)
            figures = metric_intervals(labels[here], probabilities[here], groups[here], task=task, **bootstrap).figures
            result[column].append(Subgroup(name, n, among, classes, n < SMALL, figures))
    return result


def _classes(labels: NDArray[Any], task: Task | None) -> int:
    """Number of classes that some rows have."""
    if task is None:
        return len(np.unique(labels))
    return sum(bool(rows.any()) for rows in task.positives(labels).values())


def write_subgroups(subgroups: Mapping[str, Sequence[Subgroup]], path: str | Path) -> None:
    """CSV: ``column, value, n, groups, classes, small``, then each metric with its ``_low`` and ``_high``."""
    lines = [
        {"column": column, **vars(part), "small": json.dumps(part.small)}
        | {name + end: getattr(figure, key) for name, figure in part.figures.items() for key, end in ENDS.items()}
        for column, parts in subgroups.items()
        for part in parts
    ]
    write_frame(Path(path), pd.DataFrame(lines).drop(columns="figures"), float_format="%.6g")


def _numeric(values: pd.Series, width: str) -> bool:
    """Whether a column is to be put in bands: all numbers, and many of them or a width."""
    try:
        numbers = values.dropna().astype(float)
    except ValueError:
        return False
    return len(numbers) > 0 and bool(np.isfinite(numbers).all()) and (bool(width) or numbers.nunique() > FEW_NUMBERS)


def _named(column: str, values: pd.Series, width: str) -> tuple[list[str], list[str]]:
    """Names of the subgroups, the largest first, and the name of each row."""
    if width:
        raise ValueError(
            f"Subgroups of {column!r} in bands of {width}: the column holds no numbers; leave the width out."
        )
    of_row = values.fillna(MISSING).tolist()
    counts = dict(sorted(Counter(of_row).items()))
    if len(counts) > MOST:
        raise ValueError(
            f"{column!r} has {len(counts)} different values, which are no subgroups; choose a column of at most {MOST}."
        )
    return sorted(counts, key=lambda name: (name == MISSING, -counts[name])), of_row


def _banded(column: str, values: pd.Series, width: str) -> tuple[list[str], list[str]]:
    """Names of the bands, the lowest first, and the name of each row."""
    numbers = values.astype(float).to_numpy()
    known = numbers[~np.isnan(numbers)]
    if width:
        step = _width(column, width)
        places = np.floor(np.round(numbers / step, 9))  # 0.3 / 0.1 is a little less than 3
        ends = np.unique(places[~np.isnan(places)])
        # in full, without the last digits' rounding error
        bands = {place: f"{place * step:.12g} to <{(place + 1) * step:.12g}" for place in ends}
    else:
        # thirds of the rows; where many rows share a number, fewer bands
        edges = np.unique(np.quantile(known, [1 / 3, 2 / 3], method="inverted_cdf"))
        edges = edges[edges < known.max()]
        places = np.where(np.isnan(numbers), np.nan, np.searchsorted(edges, numbers))
        pairs = enumerate(pairwise([known.min(), *edges, known.max()]))
        bands = {float(i): f"{'>' if i else ''}{low:g} to {high:g}" for i, (low, high) in pairs}
    of_row = [bands.get(place, MISSING) for place in places]
    return [name for name in (*bands.values(), MISSING) if name in of_row], of_row


def _width(column: str, width: str) -> float:
    try:
        step = float(width)
    except ValueError:
        step = 0.0
    if not (0 < step < float("inf")):
        raise ValueError(f"Subgroups of {column!r}: a band is a number above 0 wide, e.g. {column}:10; got {width!r}.")
    return step
