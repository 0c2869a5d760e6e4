"""Metrics of subgroups: each value of a metadata column, or bands of numbers."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmfusion.evaluation.intervals import metric_intervals
from mmfusion.files import write_frame
from mmfusion.names import lacking
from mmfusion.results import Subgroup
from mmfusion.task import Task

#: Subgroups with fewer rows are marked small, since their metrics are unreliable.
SMALL = 50

#: A column with more distinct texts identifies rows rather than subgroups.
MOST = 50

#: Numbers with more distinct values are put in bands.
FEW_NUMBERS = 5

MISSING = "(missing)"

#: End of an interval -> suffix of its column.
ENDS = {"value": "", "low": "_low", "high": "_high"}


def subgroup_figures(
    frame: pd.DataFrame,
    labels: NDArray[np.int64],
    probabilities: NDArray[np.float32],
    groups: NDArray[Any],
    columns: Sequence[str],
    task: Task | None = None,
    rename: Callable[[str], str] = str,
    **bootstrap: Any,
) -> dict[str, list[Subgroup]]:
    """All metrics of each subgroup, with intervals.

    Args:
        frame: N rows of ``CaseTable.frame``.
        labels: (N,) true class indices.
        probabilities: (N, C).
        groups: (N,) units of the bootstrap.
        columns: Names of metadata columns. Numbers are split into thirds of the rows; ``age:10`` into bands of ten.
        task: Task of labels and answers; None means ``multiclass``.
        rename: Name in ``columns`` that is no column of ``frame`` -> one that is (``DatasetConfig.renamed``).
        bootstrap: ``replicates``, ``level`` and ``seed`` of :func:`~mmfusion.evaluation.intervals.metric_intervals`.

    Returns:
        Column -> its ordered subgroups. Rows without a value form a subgroup; those with fewer than :data:`SMALL` rows
        are marked.

    Raises:
        ValueError: A column does not exist, has texts but a band width, or has a distinct text in almost every row.
    """
    result: dict[str, list[Subgroup]] = {}
    parted = [wanted.partition(":")[::2] for wanted in columns]
    own = {column: column if column in frame.columns else rename(column) for column, _ in parted}
    if missing := [column for column, name in own.items() if name not in frame.columns]:
        raise ValueError(f"The data have no column {lacking(missing, frame.columns)}")
    for column, width in parted:
        values = frame[own[column]].map(str, na_action="ignore")
        names, of_row = _banded(column, values, width) if _numeric(values, width) else _named(column, values, width)
        result[column] = []
        for name in names:
            here = np.array([value == name for value in of_row])
            n, among, classes = int(here.sum()), len(np.unique(groups[here])), _classes(labels[here], task)
            figures = metric_intervals(labels[here], probabilities[here], groups[here], task=task, **bootstrap).figures
            result[column].append(Subgroup(name, n, among, classes, n < SMALL, figures))
    return result


def _classes(labels: NDArray[Any], task: Task | None) -> int:
    """Number of classes that have rows."""
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
    """Whether to put a column in bands: all numbers, and many of them or a width is given."""
    try:
        numbers = values.dropna().astype(float)
    except ValueError:
        return False
    return len(numbers) > 0 and bool(np.isfinite(numbers).all()) and (bool(width) or numbers.nunique() > FEW_NUMBERS)


def _named(column: str, values: pd.Series, width: str) -> tuple[list[str], list[str]]:
    """Names of the subgroups, largest first, and the name of each row."""
    if width:
        raise ValueError(f"Subgroups of {column!r} in bands of {width}: the column is not numeric; remove the width.")
    of_row = values.fillna(MISSING).tolist()
    counts = dict(sorted(Counter(of_row).items()))
    if len(counts) > MOST:
        raise ValueError(
            f"{column!r} has {len(counts)} distinct values, too many subgroups; choose a column with at most {MOST}."
        )
    return sorted(counts, key=lambda name: (name == MISSING, -counts[name])), of_row


def _banded(column: str, values: pd.Series, width: str) -> tuple[list[str], list[str]]:
    """Names of the bands, lowest first, and the name of each row."""
    numbers = values.astype(float).to_numpy()
    known = numbers[~np.isnan(numbers)]
    if width:
        step = _width(column, width)
        places = np.floor(np.round(numbers / step, 9))  # 0.3 / 0.1 is slightly less than 3
        ends = np.unique(places[~np.isnan(places)])
        # rounded to hide floating-point error
        bands = {place: f"{place * step:.12g} to <{(place + 1) * step:.12g}" for place in ends}
    else:
        # thirds of the rows; fewer bands if many rows share a number
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
        raise ValueError(f"Subgroups of {column!r}: a band width must be above 0, e.g. {column}:10; got {width!r}.")
    return step
