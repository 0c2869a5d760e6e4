"""Logistic regression on the features of a frozen tower, stored as the linear head of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import send_to_device
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from mmfusion.data import CaseTable, MultimodalDataset
from mmfusion.inference.predictor import Predictor
from mmfusion.models import FusionModel

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

#: Regularization strengths (scikit-learn's C, for standardized features); selected on the validation rows.
STRENGTHS = (1e-3, 1e-2, 1e-1)


def features_of(
    predictor: Predictor, cases: CaseTable, batch_size: int, on_batch: Callable[[], None]
) -> NDArray[np.float64]:
    """Inputs of a model's head per row: (N, num_features); ``on_batch`` is called before each batch."""
    model, rows = predictor.network().eval(), MultimodalDataset(cases, predictor.processor)
    found = []
    with torch.inference_mode():
        for batch in DataLoader(rows, batch_size=batch_size, collate_fn=rows.collate):
            on_batch()
            inputs = send_to_device({name: value for name, value in batch.items() if name != "labels"}, model.device)
            found.append(model.forward_features(**inputs).pooled.double().cpu().numpy())
    return np.concatenate(found)


def fit_head(predictor: Predictor, cases: CaseTable, batch_size: int, on_batch: Callable[[], None]) -> str:
    """Fit logistic regression on the training rows and store it in a model's linear head.

    Args:
        predictor: A model with a ``linear`` head; its towers are unchanged.
        cases: A table with training and validation rows; the latter select the regularization.
        batch_size: Number of rows encoded at once.
        on_batch: Called before each batch and each fit; an exception stops them.

    Returns:
        The selected regularization in words.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    x, val_x = (features_of(predictor, cases.select(split), batch_size, on_batch) for split in ("train", "val"))
    mean, scale = x.mean(axis=0), x.std(axis=0)
    scale[scale < 1e-6] = 1.0
    y, val_y = (cases.select(split).frame["label"].map(predictor.labels.index) for split in ("train", "val"))
    fitted = []
    for strength in STRENGTHS:
        on_batch()
        fitted.append(LogisticRegression(C=strength, max_iter=1000).fit((x - mean) / scale, y))

    def loss(regression: LogisticRegression) -> float:
        probabilities = regression.predict_proba((val_x - mean) / scale)
        return float(log_loss(val_y, probabilities, labels=range(len(predictor.labels))))

    best = min(fitted, key=loss)
    into_head(predictor.network(), best, mean, scale)
    return f"penalty C={best.C:g}"


def into_head(
    model: FusionModel, regression: LogisticRegression, mean: NDArray[np.float64], scale: NDArray[np.float64]
) -> None:
    """Write a logistic regression on standardized features into a model's linear head.

    Args:
        model: Model with a ``linear`` head for the classes of the regression.
        regression: Fitted on ``(features - mean) / scale``.
        mean: (num_features,) mean of the features.
        scale: (num_features,) scale of the features, above 0.
    """
    weight, bias = regression.coef_ / scale, regression.intercept_.copy()
    bias -= weight @ mean
    if len(weight) == 1:  # with two classes, the log-odds of the second
        weight, bias = np.vstack([np.zeros_like(weight), weight]), np.concatenate([[0.0], bias])
    head: Any = model.head
    with torch.no_grad():
        head.fc.weight.copy_(torch.from_numpy(weight))
        head.fc.bias.copy_(torch.from_numpy(bias))
