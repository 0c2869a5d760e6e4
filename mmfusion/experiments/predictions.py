"""The predictions that runs and evaluations leave behind."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mmfusion.experiments.differences import RunPredictions
from mmfusion.experiments.plan import PREDICTIONS


def read_predictions(folders: Sequence[Path]) -> tuple[RunPredictions, dict[str, str]]:
    """The labeled and readable rows of ``predictions.csv`` in folders, one after the other, and id -> group of each.

    Cells are read as text: a class may be called None, and an id NA. A row without a group is in no group.

    Raises:
        ValueError: A table does not say what is true.
    """
    parts = [pd.read_csv(folder / PREDICTIONS, dtype=str, keep_default_na=False) for folder in folders]
    for folder, part in zip(folders, parts, strict=True):
        if "true_label" not in part:
            raise ValueError(
                f"{folder / PREDICTIONS} does not say what is true (true_label); mmfusion evaluate writes it."
            )
    table = pd.concat(parts, ignore_index=True)
    table = table[(table["true_label"] != "") & (table["error"] == "")]
    columns = [name for name in table.columns if name.startswith("p_")]
    names = [name.removeprefix("p_") for name in columns]
    labels = np.array([names.index(label) for label in table["true_label"]])
    probabilities: NDArray[np.float64] = table[columns].astype(np.float64).to_numpy()
    ids = table["id"].tolist()
    groups = {id_: group for id_, group in zip(ids, table.get("group", [""] * len(ids)), strict=True) if group}
    return RunPredictions(ids, labels, probabilities, names), groups
