"""Figures of a cross-validation over all its folds, for the card of the model of one fold."""

import os
from dataclasses import replace

import numpy as np
import pandas as pd

from mmfusion.artifacts.locating import folder_of
from mmfusion.evaluation.measure import figures_of
from mmfusion.experiments.plan import PREDICTIONS
from mmfusion.experiments.predictions import read_predictions
from mmfusion.inference.cases import Predictions
from mmfusion.results import Evaluation, Pooled


def pooled(run: str | os.PathLike[str], own: Evaluation) -> Evaluation:
    """The test rows of all folds together, each predicted by the model that was not trained on its fold.

    Args:
        run: Folder ``seed-S/fold-F`` of a finished ``mmfusion compare`` with ``cross_validate``.
        own: What the model of that run does on its own test rows.

    Returns:
        The figures of all folds with intervals over groups; ``pooled`` says which of the models this one is.

    Raises:
        ValueError: The folder is not of a cross-validation, or one of its folds is not finished.
    """
    folder = folder_of(run).resolve()
    folder = folder if folder.name.startswith("fold-") else folder.parent
    folds = sorted(path for path in folder.parent.glob("fold-*") if path.is_dir())
    missing = [path.name for path in folds if not (path / PREDICTIONS).is_file()]
    if not folder.name.startswith("fold-") or len(folds) < 2 or missing:
        what = f"{', '.join(missing)} is not finished" if missing else "it lies in no seed-S/fold-F of a comparison"
        raise ValueError(f"{folder}: figures are pooled over the folds of a cross-validation; {what}.")
    found, groups = read_predictions(folds)
    frame = pd.DataFrame({"id": found.ids, "group": [groups.get(id_) for id_ in found.ids]}, dtype=object)
    p = found.probabilities.astype(np.float32)
    evaluation = figures_of(Predictions(frame, found.labels, p, p, 0, {}), found.class_names, task=found.task)
    seed, fold = folder.parent.name.removeprefix("seed-"), folder.name.removeprefix("fold-")
    one_of = Pooled(len(folds), seed, fold, own.n, own.figures)
    return replace(evaluation, thresholds=own.thresholds, pooled=one_of)
