"""A ladder of updates of probabilities for another site, each with more to fit than the one before.

All have one form, ``softmax(a log p + b)`` with a slope and an intercept for each class.

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

#: updates, in the order of how much they fit.
KINDS = ("none", "prior_shift", "temperature", "slope_intercept")

#: pull to no update, in rows: of a slope, of an intercept, and of the class shares of ``prior_shift``. A hundred cases
#: of seven classes would otherwise fit chance.
SLOPES, INTERCEPTS, SHARES = 50.0, 10.0, 20.0

#: standard errors by which an update has to be better than a simpler one.
CLEARLY = 1.645

#: folds of the local cases among which an update is chosen.
FOLDS = 5


@dataclass(frozen=True)
class Update:
    """``softmax(slope * log p + intercept)``, with numbers (C,) for each class."""

    kind: str
    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]

    def apply(self, probabilities: ArrayLike) -> Floats:
        """Probabilities (N, C) -> (N, C)."""
        found: Floats = softmax(self.slope * as_logits(probabilities) + self.intercept, axis=1)
        return found


def shifted_prior(probabilities: ArrayLike, old: ArrayLike, pull: float = 0.0, steps: int = 1000) -> Floats:
    """Class shares (C,) of cases without labels, by expectation maximization.

    Args:
        probabilities: (N, C) of the cases, right where classes have the ``old`` shares.
        old: (C,) shares that the probabilities are right for, above 0.
        pull: Number of cases with the old shares that are added to them.
        steps: Most steps.
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
        probabilities: (N, C), calibrated at home.
        old: (C,) class shares at home, for ``prior_shift``.

    Raises:
        ValueError: ``prior_shift`` without ``old``, or an unknown kind.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    classes = p.shape[1]
    ones, zeros = np.ones(classes), np.zeros(classes)
    if kind == "none":
        return Update(kind, ones, zeros)
    if kind == "prior_shift":
        if old is None:
            raise ValueError("prior_shift needs the class shares that the model was trained on.")
        before = np.asarray(old, dtype=np.float64).clip(1e-6)
        before = before / before.sum()
        return Update(kind, ones, np.log(shifted_prior(p, before, SHARES) / before))
    if kind == "temperature":
        return Update(kind, ones / fit_temperature(y, p), zeros)
    if kind != "slope_intercept":
        raise ValueError(f"Unknown update {kind!r}; known: {', '.join(KINDS)}.")
    logits = as_logits(p).clip(-30)  # nearly impossible or quite: a slope shall not hang on which
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
    """The update of local cases that is likeliest out of fold, fitted on all of them.

    The first of the ladder is taken that the best does not clearly beat (one-sided, at 95 %), so that few cases choose
    little: none, unless another is better by more than chance.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        groups: (N,) what stays in one fold, e.g. the patient.
        old: See :func:`fit_update`; None leaves ``prior_shift`` out.
        seed: Of the folds.
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
