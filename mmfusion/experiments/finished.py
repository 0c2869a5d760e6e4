"""Comparison of finished runs on the same rows, without training."""

import numpy as np

from mmfusion.decisions import check_classes
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.experiments.differences import RowResult, RunPredictions, compare_rows
from mmfusion.experiments.plan import Row, finished_folders
from mmfusion.experiments.predictions import read_predictions


def compare_finished(experiment: ExperimentConfig) -> list[RowResult]:
    """Metrics of every finished run, and their differences from the first, paired by row.

    Raises:
        FileNotFoundError: A folder has no predictions.
        ValueError: Rows, labels, classes or groups differ from the first run, or an alarm class is unknown.
    """
    folders = finished_folders(experiment)
    read = {name: read_predictions([folder]) for name, folder in folders.items()}
    base, (first, _) = next(iter(read.items()))
    check_classes(experiment.alarm, first.class_names)
    groups: dict[str, str] = {}
    for name, (own, own_groups) in read.items():
        _check_same(name, own, base, first)
        if other := [id_ for id_, group in own_groups.items() if groups.setdefault(id_, group) != group]:
            raise ValueError(f"{name} has other groups than {base}, such as that of the row {other[0]!r}.")
    rows = [Row(name, "variant" if name != base else "base", experiment.run) for name in read]
    return compare_rows(experiment, rows, {name: {0: own} for name, (own, _) in read.items()}, groups, fewest_seeds=1)


def _check_same(name: str, own: RunPredictions, base: str, first: RunPredictions) -> None:
    if own.asked.name != first.asked.name or own.class_names != first.class_names:
        raise ValueError(
            f"{name} has the classes {', '.join(own.class_names)}, {base} {', '.join(first.class_names)}; "
            "only runs with the same classes can be compared."
        )
    if extra := set(own.ids) ^ set(first.ids):
        raise ValueError(
            f"{name} was evaluated on other rows than {base}: {len(extra):,} are in only one of them, such as "
            f"{min(extra)!r}; evaluate both with mmfusion evaluate on the same --data and --split."
        )
    known = dict(zip(first.ids, first.labels, strict=True))
    truth = np.array([known[id_] for id_ in own.ids])
    same = (truth == own.labels) | ((truth != truth) & (own.labels != own.labels))
    differ = ~same.reshape(len(truth), -1).all(axis=1)
    for place in np.flatnonzero(differ)[:1]:
        now, then = own.asked.written(own.labels[place]), first.asked.written(truth[place])
        raise ValueError(
            f"{name} and {base} have different labels for {differ.sum():,} rows, such as "
            f"{own.ids[place]!r}: {now}, and {then}; evaluate both on the same labels."
        )
