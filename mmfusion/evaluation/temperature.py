"""Temperature scaling of probabilities.

Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, sec. 4.2. The temperature is applied to the
mean over test-time augmentations if there are several (Ashukha et al., Pitfalls of In-Domain Uncertainty Estimation
and Ensembling in Deep Learning, ICLR 2020), hence to probabilities: ``p^(1/T)``, normalized, is
``softmax(logits / T)``, and ``T`` undoes ``1 / T``.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.evaluation.weighted import checked

#: Search range. More extreme temperatures are not supported by the validation rows.
RANGE = (0.05, 20.0)


def temper(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """``softmax(logits / T)`` from ``softmax(logits)``: (N, C) -> (N, C). The ranking of the classes is unchanged.

    ``temper(temper(p, T), 1 / T)`` is p.

    Raises:
        ValueError: The temperature is not above 0.
    """
    if not 0 < temperature < float("inf"):
        raise ValueError(f"A temperature must be above 0; got {temperature}.")
    from scipy.special import softmax  # here, since the tasks, which every model knows, import this module

    return softmax(as_logits(probabilities) / temperature, axis=-1)


def fit_temperature(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Temperature that minimizes the negative log-likelihood.

    Args:
        labels: (N,) int, of rows not used for training.
        probabilities: (N, C), uncalibrated.

    Returns:
        T in :data:`RANGE`; above 1 means an overconfident model. 1 if all rows are classified correctly, since the
        optimum would be infinite confidence.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import log_softmax

    p = np.asarray(probabilities)
    y, p = checked(labels, p, range(p.shape[-1]))
    if (p.argmax(axis=1) == y).all():
        return 1.0
    logits, rows = as_logits(p), np.arange(len(y))

    def loss(log_temperature: float) -> float:
        return float(-log_softmax(logits / np.exp(log_temperature), axis=1)[rows, y].mean())

    # convex in 1 / T, so there is one minimum in log T
    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))


def row_losses(labels: ArrayLike, probabilities: ArrayLike) -> NDArray[np.float64]:
    """(N,) negative log-likelihood of each row, from labels (N,) and probabilities (N, C); finite."""
    y = np.asarray(labels)
    return -as_logits(probabilities)[np.arange(len(y)), y]


def as_logits(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Finite logits of probabilities (N, C), up to a constant per row."""
    p = np.asarray(probabilities, dtype=np.float64)
    # a float32 softmax returns 0 for anything smaller
    return np.log(p.clip(np.finfo(np.float32).smallest_subnormal))


def fit_label_temperature(labels: ArrayLike, logits: ArrayLike) -> float:
    """Temperature of one label that minimizes the negative log-likelihood of ``sigmoid(logits / T)``.

    Args:
        labels: (N,) 1 or 0, of rows not used for training.
        logits: (N,) log-odds.

    Returns:
        T in :data:`RANGE`; 1 if all rows are classified correctly.
    """
    from scipy.optimize import minimize_scalar

    sign = np.where(np.asarray(labels) == 1, 1.0, -1.0)
    margin = sign * np.asarray(logits, dtype=np.float64)
    if (margin > 0).all():
        return 1.0

    def loss(log_temperature: float) -> float:
        return float(np.logaddexp(0, -margin / np.exp(log_temperature)).mean())

    found = minimize_scalar(loss, bounds=np.log(RANGE), method="bounded", options={"xatol": 1e-7})
    return float(np.exp(found.x))
