"""Reads the predictions of runs and evaluations."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmfusion.artifacts.names import METRICS
from mmfusion.experiments.config import ExperimentConfig
from mmfusion.experiments.differences import RunPredictions
from mmfusion.experiments.plan import PREDICTIONS, finished_folders
from mmfusion.files import read_json
from mmfusion.task import DEFAULT, Task, task_named


def read_predictions(
    folders: Sequence[Path], counted: Mapping[Path, Collection[str]] = MappingProxyType({})
) -> tuple[RunPredictions, dict[str, str]]:
    """Read the labeled, readable rows of ``predictions.csv`` in several folders, and the group of each id.

    Cells are read as text, since a class may be named None and an id NA. Rows without a group have none.

    Args:
        folders: Folders of runs or evaluations.
        counted: Folder -> ids to use, if not all.

    Raises:
        ValueError: A table has no true labels.
    """
    parts = [pd.read_csv(folder / PREDICTIONS, dtype=str, keep_default_na=False) for folder in folders]
    parts = [
        part[part["id"].isin(counted[folder])] if folder in counted else part
        for folder, part in zip(folders, parts, strict=True)
    ]
    for folder, part in zip(folders, parts, strict=True):
        if "true_label" not in part:
            raise ValueError(
                f"{folder / PREDICTIONS} has no true labels (true_label); create it with mmfusion evaluate."
            )
    table = pd.concat(parts, ignore_index=True)
    table = table[(table["true_label"] != "") & (table["error"] == "")]
    task = _task(folders[0], [name.removeprefix("p_") for name in table.columns if name.startswith("p_")])
    labels = task.encoded(table["true_label"].tolist())
    answers = table[task.answer_columns].replace("", "nan")
    probabilities: NDArray[np.float64] = answers.astype(np.float64).to_numpy()
    ids = table["id"].tolist()
    groups = {id_: group for id_, group in zip(ids, table.get("group", [""] * len(ids)), strict=True) if group}
    return RunPredictions(ids, labels, probabilities, task.labels, task), groups


def finished_task(experiment: ExperimentConfig) -> Task:
    """The task of the first of the finished runs to compare."""
    return _task(next(iter(finished_folders(experiment).values())), [])


def _task(folder: Path, class_names: Sequence[str]) -> Task:
    """The task of an evaluation with its labels; ``multiclass`` without ``metrics.json``."""
    path = folder / METRICS
    about = read_json(path) if path.is_file() else {}
    name = about.get("task") or DEFAULT
    return task_named(name, class_names or about.get("classes") or [])
