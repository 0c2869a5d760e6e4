"""Reference baselines without a network: class shares and gradient boosting on table columns."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfusion.data import CaseTable
from mmfusion.data.table_columns import TableColumns
from mmfusion.evaluation.metrics import METRICS, classification_metrics
from mmfusion.experiments.plan import PREDICTIONS
from mmfusion.experiments.running import RESULT
from mmfusion.files import read_json, write_json
from mmfusion.inference.predictions_csv import MEASURED, prediction_writer
from mmfusion.inference.stream import Prediction
from mmfusion.task import DEFAULT
from mmfusion.training.build import label_counts
from mmfusion.training.columns import choose_columns
from mmfusion.training.config import RunConfig
from mmfusion.training.rows import read_training_cases

#: Number of bins of scikit-learn per column, including missing and unseen values.
_MOST_CATEGORIES = 253


def class_shares(cases: CaseTable, rows: CaseTable) -> NDArray[np.float64]:
    """Predict the class shares of the training rows of ``cases`` for each of ``rows``: (N, C)."""
    counts = np.array(label_counts(cases)["class_counts"])
    return np.tile(counts / counts.sum(), (len(rows), 1))


def gradient_boosting(
    cases: CaseTable, rows: CaseTable, columns: TableColumns, *, seed: int = 0, iterations: int = 100
) -> NDArray[np.float64]:
    """Predict with scikit-learn's ``HistGradientBoostingClassifier`` fitted on columns: (N, C).

    Args:
        cases: The table with the training rows.
        rows: The N rows to predict.
        columns: The input columns.
        seed: Random seed.
        iterations: Number of boosting iterations.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier

    trained = cases.select("train").frame
    few = [len(column.values) <= _MOST_CATEGORIES for column in columns.categorical]
    model = HistGradientBoostingClassifier(
        max_iter=iterations,
        early_stopping=False,
        categorical_features=[*[False] * len(columns.numeric), *few],
        random_state=seed,
    )
    model.fit(_inputs(trained, columns), trained["label"].to_numpy(dtype=str))
    found = model.predict_proba(_inputs(rows.frame, columns))
    order: NDArray[np.float64] = found[:, [model.classes_.tolist().index(label) for label in cases.labels]]
    return order


def _inputs(frame: Any, columns: TableColumns) -> NDArray[np.float64]:
    encoded = columns.encode_columns(frame)
    return np.hstack([encoded.numeric_values, encoded.category_ids]).astype(np.float64)


def reference_once(name: str, config: RunConfig, *, images_checked: bool) -> dict[str, Any]:
    """Fit a reference on the training rows of a run and predict its test rows, or return the earlier result.

    Args:
        name: ``prior`` or ``gradient_boosting``.
        config: The run, for its data, split, seed and columns.
        images_checked: See :func:`~mmfusion.training.train`.

    Returns:
        ``figures`` (metrics of the test rows) and ``seconds``; the predictions are in ``predictions.csv``.

    Raises:
        ValueError: The data have no input column or no test rows.
    """
    folder = Path(config.output)
    if (folder / RESULT).is_file():
        return read_json(folder / RESULT)
    if config.dataset.task != DEFAULT:
        told = f"The reference {name!r} supports only multiclass, but the task is {config.dataset.task}"
        raise ValueError(f"{told}; remove it from baselines.")
    cases, began = read_training_cases(config, images_checked), time.monotonic()
    rows, names = cases.select("test"), cases.labels
    if name == "prior":
        probabilities = class_shares(cases, rows)
    else:
        asked = config.dataset.for_columns()
        table = choose_columns(cases, asked, config.privacy.min_patients).table
        assert table is not None
        probabilities = gradient_boosting(cases, rows, table, seed=config.seed)
    truth = rows.frame["label"].tolist()
    predicted = Prediction(0, np.log(probabilities, dtype=np.float32), [None] * len(rows), [""] * len(rows))
    known = dict(zip(MEASURED, (truth, rows.frame["group"].fillna("").astype(str).tolist()), strict=True))
    with prediction_writer(folder / PREDICTIONS, names, known=MEASURED) as write:
        write(rows.frame["id"].tolist(), predicted, known)
    figures = classification_metrics([names.index(label) for label in truth], probabilities, names)
    result = {"figures": {metric: figures[metric] for metric in METRICS}, "seconds": time.monotonic() - began}
    write_json(folder / RESULT, result)
    return result
