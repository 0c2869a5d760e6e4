"""Updates of probabilities for another site, ordered by their number of parameters.

All have the form ``softmax(a log p + b)`` with slope and intercept per class.

Source: Saerens, Latinne and Decaestecker, Adjusting the Outputs of a Classifier to New a Priori Probabilities, Neural
Computation 2002 (``prior_shift``, which needs no labels); Guo et al., On Calibration of Modern Neural Networks, ICML
2017 (``temperature``, and vector scaling, here ``slope_intercept``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from mmfusion.evaluation.temperature import as_logits, fit_temperature, row_losses
from mmfusion.evaluation.weighted import Floats

#: Updates, ordered by number of parameters.
KINDS = ("none", "prior_shift", "temperature", "slope_intercept")

#: Shrinkage towards no update, in rows: of slopes, of intercepts, and of the class shares of ``prior_shift``. Otherwise
#: a hundred cases of seven classes would overfit.
SLOPES, INTERCEPTS, SHARES = 50.0, 10.0, 20.0

#: Number of standard errors by which an update must be better than a simpler one.
CLEARLY = 1.645

#: Number of cross-validation folds of the local cases for selecting an update.
FOLDS = 5


@dataclass(frozen=True)
class Update:
    """``softmax(slope * log p + intercept)``, with (C,) slopes and intercepts."""

    kind: str
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def apply(self, probabilities: ArrayLike) -> Floats:
        """Update probabilities (N, C) -> (N, C)."""
        found: Floats = softmax(self.slope * as_logits(probabilities) + self.intercept, axis=1)
        return found


def shifted_prior(probabilities: ArrayLike, old: ArrayLike, pull: float = 0.0, steps: int = 1000) -> Floats:
    """Estimate class shares (C,) of unlabeled cases by expectation maximization.

    Args:
        probabilities: (N, C), calibrated for the ``old`` class shares.
        old: (C,) class shares of the training data, above 0.
        pull: Number of pseudo-cases with the old shares.
        steps: Maximum number of steps.
    """
    p, before = np.asarray(probabilities, dtype=np.float64), np.asarray(old, dtype=np.float64)
    prior = before
    for _ in range(steps):
        posterior = p * (prior / before)
        posterior /= posterior.sum(axis=1, keepdims=True)
        last, prior = prior, (posterior.sum(axis=0) + pull * before) / (len(p) + pull)
        if np.abs(prior - last).max() < 1e-10:
            break
    return prior


def fit_update(kind: str, labels: ArrayLike, probabilities: ArrayLike, old: ArrayLike | None = None) -> Update:
    """Fit one update on local cases.

    Args:
        kind: One of :data:`KINDS`.
        labels: (N,) int.
        probabilities: (N, C), calibrated for the training site.
        old: (C,) class shares of the training site, for ``prior_shift``.

    Raises:
        ValueError: ``prior_shift`` is used without ``old``, or the kind is unknown.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    classes = p.shape[1]
    ones, zeros = np.ones(classes), np.zeros(classes)
    if kind == "none":
        return Update(kind, ones, zeros)
    if kind == "prior_shift":
        if old is None:
            raise ValueError("prior_shift needs the class shares of the training data.")
        before = np.asarray(old, dtype=np.float64).clip(1e-6)
        before = before / before.sum()
        return Update(kind, ones, np.log(shifted_prior(p, before, SHARES) / before))
    if kind == "temperature":
        return Update(kind, ones / fit_temperature(y, p), zeros)
    if kind != "slope_intercept":
        raise ValueError(f"Unknown update {kind!r}; known: {', '.join(KINDS)}.")
    logits = as_logits(p).clip(-30)  # limits the influence of extreme probabilities on the slope
    truth, pull = np.eye(classes)[y], np.repeat([SLOPES, INTERCEPTS], classes)

    def loss(values: Floats) -> tuple[float, Floats]:
        slope, intercept = values[:classes], values[classes:]
        logs = log_softmax(slope * logits + intercept, axis=1)
        error = np.exp(logs) - truth
        far = np.concatenate([slope - 1, intercept])
        gradient = np.concatenate([(error * logits).sum(axis=0), error.sum(axis=0)]) + pull * far
        return float(-logs[np.arange(len(y)), y].sum() + (pull * far**2).sum() / 2), gradient

    found = minimize(loss, np.concatenate([ones, zeros]), jac=True, method="L-BFGS-B").x
    return Update(kind, found[:classes], found[classes:])


def choose_update(
    labels: ArrayLike,
    probabilities: ArrayLike,
    groups: Sequence[str] | NDArray[np.str_],
    old: ArrayLike | None = None,
    seed: int = 0,
) -> Update:
    """Select the update with the best cross-validated likelihood and fit it on all local cases.

    The simplest update that the best one does not clearly beat (one-sided, at 95 %) is selected, so with few cases
    this is usually none.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        groups: (N,) units kept in one fold, e.g. patients.
        old: See :func:`fit_update`; None excludes ``prior_shift``.
        seed: Seed of the folds.
    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    _, codes = np.unique(np.asarray(groups), return_inverse=True)
    folds = np.random.default_rng(seed).permutation(codes.max() + 1)[codes] % FOLDS
    kinds = [kind for kind in KINDS if kind != "prior_shift" or old is not None]

    def fit(kind: str, rows: NDArray[np.bool_]) -> Update:
        return fit_update(kind, y[rows], p[rows], old)

    losses = {kind: np.empty(len(y)) for kind in kinds}
    for fold in np.unique(folds):
        inside, held_out = folds != fold, folds == fold
        if not inside.any():
            return fit_update("none", y, p)
        for kind in kinds:
            losses[kind][held_out] = row_losses(y[held_out], fit(kind, inside).apply(p[held_out]))
    best = min(kinds, key=lambda kind: losses[kind].mean())
    for kind in kinds:
        gap = np.bincount(codes, losses[kind] - losses[best])
        if gap.sum() <= CLEARLY * np.sqrt(len(gap)) * gap.std():  # of sums over groups
            return fit(kind, np.ones(len(y), dtype=bool))
    return fit(best, np.ones(len(y), dtype=bool))
