"""Fits the detector of cases that are unlike the training rows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf

from mmfusion.data import CaseTable
from mmfusion.inference.familiarity import Familiarity, Part, vectors_of
from mmfusion.inference.features import stream_features
from mmfusion.inference.predictor import Predictor

#: Maximum number of rows used per split; more would not change the result noticeably.
MOST_ROWS = 1000

#: Maximum number of principal directions of a covariance.
MOST_DIRECTIONS = 64

#: Quantile levels of the validation distances that are saved.
LEVELS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.15, 0.1, 0.07, 0.05, 0.03, 0.02, 0.01, 0.005, 0.002, 0.001)


def fit_familiarity(
    predictor: Predictor,
    train: CaseTable,
    validation: CaseTable,
    *,
    min_patients: int = 5,
    batch_size: int = 64,
    workers: int = 0,
    seed: int = 0,
) -> Familiarity | None:
    """Fit the familiarity of cases on a sample of the training and validation rows.

    Args:
        predictor: A single trained model.
        train: Training rows, for mean and covariance.
        validation: Rows that define the distribution of distances; a case closer than all of them has familiarity 1.
        min_patients: Minimum number of patients (groups) behind every saved number; limits the directions to patients
            divided by this, and excludes quantiles of fewer.
        batch_size: Rows per step.
        workers: Loader processes.
        seed: Seed for choosing rows if there are more than :data:`MOST_ROWS`.

    Returns:
        None if either split has fewer patients than four times ``min_patients``.
    """
    chosen = [_some(cases, seed) for cases in (train, validation)]
    groups = [len({row if group is None else group for row, group in cases.frame["group"].items()}) for cases in chosen]
    if min(groups) < 4 * min_patients:
        return None
    known, others = (_vectors(predictor, cases, batch_size=batch_size, workers=workers) for cases in chosen)
    levels = np.array([level for level in LEVELS if level * groups[1] >= min_patients], dtype=np.float32)
    parts = {}
    for name, vectors in known.items():
        rows, held_out = vectors[~np.isnan(vectors[:, 0])], others[name][~np.isnan(others[name][:, 0])]
        enough = 4 * min_patients
        if len(rows) >= enough and len(held_out) >= enough:
            parts[name] = _part(rows, held_out, levels, min(MOST_DIRECTIONS, groups[0] // min_patients))
    return Familiarity(parts, levels, len(chosen[0])) if parts else None


def _some(cases: CaseTable, seed: int) -> CaseTable:
    frame = cases.frame
    if len(frame) <= MOST_ROWS:
        return cases
    picked = np.sort(np.random.default_rng(seed).choice(len(frame), MOST_ROWS, replace=False))
    return replace(cases, frame=frame.iloc[picked], problems=[])


def _vectors(predictor: Predictor, cases: CaseTable, **loading: int) -> dict[str, NDArray[Any]]:
    """Part -> (N, D) features of the readable rows."""
    found: dict[str, list[NDArray[Any]]] = {}
    for inputs, features, _ in stream_features(predictor, cases, description="Familiarity", **loading):
        for name, vectors in vectors_of(inputs, features)[0].items():
            found.setdefault(name, []).append(vectors)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def _part(rows: NDArray[Any], held_out: NDArray[Any], levels: NDArray[np.float32], most: int) -> Part:
    """Mean and shrunk covariance of rows (N, D), and the distances of held-out rows from it."""
    mean, scale = rows.mean(axis=0, dtype=np.float64), rows.std(axis=0, dtype=np.float64)
    scale[scale < 1e-6] = 1.0
    covariance, _ = ledoit_wolf((rows - mean) / scale, assume_centered=True)
    variances, directions = np.linalg.eigh(covariance)
    variances, directions = variances[::-1].clip(1e-9), directions[:, ::-1]
    rest = float(variances[most:].mean()) if most < len(variances) else 0.0
    kept = [mean, scale, directions[:, :most].astype(np.float16), variances[:most], levels]
    mean, scale, directions, variances, levels = (np.asarray(each, dtype=np.float32) for each in kept)
    part = Part(mean, scale, directions, variances, levels, rest)
    return replace(part, quantiles=np.quantile(part.distance(held_out), 1 - levels).astype(np.float32))
