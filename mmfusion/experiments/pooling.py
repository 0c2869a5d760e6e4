"""Cross-validation metrics pooled over all folds, for the card of the model of one fold."""

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
    """Evaluate the test rows of all folds together, each predicted by the model not trained on its fold.

    Args:
        run: Folder ``seed-S/fold-F`` of a finished ``mmfusion compare`` with ``cross_validate``.
        own: Evaluation of that run's model on its own test rows.

    Returns:
        The metrics over all folds with intervals over groups; ``pooled`` describes which model this one is.

    Raises:
        ValueError: The folder is not from a cross-validation, or a fold is not finished.
    """
    folder = folder_of(run).resolve()
    folder = folder if folder.name.startswith("fold-") else folder.parent
    folds = sorted(path for path in folder.parent.glob("fold-*") if path.is_dir())
    missing = [path.name for path in folds if not (path / PREDICTIONS).is_file()]
    if not folder.name.startswith("fold-") or len(folds) < 2 or missing:
        what = f"{', '.join(missing)} is not finished" if missing else "it is not a seed-S/fold-F of a comparison"
        raise ValueError(f"{folder}: only the folds of a cross-validation can be pooled; {what}.")
    found, groups = read_predictions(folds)
    frame = pd.DataFrame({"id": found.ids, "group": [groups.get(id_) for id_ in found.ids]}, dtype=object)
    p = found.probabilities.astype(np.float32)
    evaluation = figures_of(Predictions(frame, found.labels, p, p, 0, {}), found.class_names, task=found.task)
    seed, fold = folder.parent.name.removeprefix("seed-"), folder.name.removeprefix("fold-")
    one_of = Pooled(len(folds), seed, fold, own.n, own.figures)
    return replace(evaluation, thresholds=own.thresholds, pooled=one_of)
