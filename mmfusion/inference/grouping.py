"""One prediction for all rows of a group: several images of one lesion or patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mmfusion.decisions import POOLINGS
from mmfusion.inference.cases import Predictions, familiarity_of
from mmfusion.inference.predictions_csv import MEASURED, prediction_writer
from mmfusion.inference.stream import MODALITIES, Prediction
from mmfusion.names import check_choice

if TYPE_CHECKING:
    from mmfusion.inference.predictor import Predictor


def pooled(probabilities: ArrayLike, codes: NDArray[np.int64], pooling: str) -> NDArray[np.float32]:
    """Pool probabilities (N, C) of rows to (G, C) of their groups.

    Args:
        probabilities: Probabilities of the rows.
        codes: (N,) group of each row, from 0 to G - 1, each with at least one row.
        pooling: ``mean``, or ``max``: the largest probability of each class, normalized.
    """
    check_choice("pooling", pooling, POOLINGS)
    p = np.asarray(probabilities, dtype=np.float64)
    if pooling == "mean":
        found = np.zeros((codes.max(initial=-1) + 1, p.shape[1]))
        np.add.at(found, codes, p)
    else:
        found = np.full((codes.max(initial=-1) + 1, p.shape[1]), -np.inf)
        np.maximum.at(found, codes, p)
    return (found / found.sum(axis=1, keepdims=True)).astype(np.float32)


def _least(familiarity: Mapping[str, NDArray[np.float32]], codes: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
    """Familiarity of the least familiar row of each group, NaN if none has the modality."""
    found = {}
    for modality, values in familiarity.items():
        found[modality] = np.full(codes.max(initial=-1) + 1, np.nan, dtype=np.float32)
        np.fmin.at(found[modality], codes, values)
    return found


def by_group(predicted: Predictions, pooling: str) -> Predictions:
    """One prediction per group of labeled rows, at the position of its first row and with the group as its id.

    Raises:
        ValueError: Rows of one group have different labels.
    """
    _, first, codes = np.unique(predicted.groups, return_index=True, return_inverse=True)
    labels = predicted.labels[first]
    if len(other := np.flatnonzero(predicted.labels != labels[codes])):
        group = predicted.frame["group"].iloc[other[0]]
        raise ValueError(f"by group: the rows of {group!r} have different labels; evaluate rows separately.")
    order = np.argsort(first)
    frame = predicted.frame.iloc[first[order]]
    names = [id_ if group is None else group for id_, group in zip(frame["id"], frame["group"], strict=True)]
    count = np.bincount(codes)[:, None]
    shares = {}
    for name, values in predicted.shares.items():
        total = np.zeros((len(first), values.shape[1]))
        np.add.at(total, codes, values)
        shares[name] = (total / count)[order].astype(np.float32)
    return replace(
        predicted,
        frame=frame.assign(id=np.array(names, dtype=object)),
        labels=labels[order],
        probabilities=pooled(predicted.probabilities, codes, pooling)[order],
        uncalibrated=pooled(predicted.uncalibrated, codes, pooling)[order],
        shares=shares,
        familiarity={name: each[order] for name, each in _least(predicted.familiarity, codes).items()},
        scores=predicted.scores[:0],
    )


def joined(
    parts: Sequence[Prediction], ids: Sequence[str], groups: Sequence[str | None], pooling: str
) -> tuple[list[str], Prediction]:
    """Pool the predictions of consecutive rows by group, in order of first appearance.

    An unreadable row is ignored unless its group has no other. A row without a group is its own group.

    Args:
        parts: All parts of the rows' predictions.
        ids: Id of each row.
        groups: Group of each row.
        pooling: See :func:`pooled`.

    Returns:
        Names of the groups, and their predictions.
    """
    keys = [("row", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    places = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    codes = np.array([places[key] for key in keys], dtype=np.int64)
    names = [""] * len(places)
    for code, id_, group in zip(codes, ids, groups, strict=True):
        names[code] = id_ if group is None else group
    errors = [error for part in parts for error in part.errors]
    probabilities = np.concatenate([part.probabilities for part in parts])
    good = np.array([error is None for error in errors])
    found = np.full((len(places), probabilities.shape[1]), np.nan, dtype=np.float32)
    there, inner = np.unique(codes[good], return_inverse=True)
    with np.errstate(divide="ignore"):  # probabilities may be 0
        found[there] = np.log(pooled(probabilities[good], inner, pooling))
    told: list[str | None] = [None] * len(places)
    seen: list[set[str]] = [set() for _ in places]
    inputs = [words for part in parts for words in part.inputs]
    for code, error, words in zip(codes, errors, inputs, strict=True):
        seen[code].update(words.split("+"))
        if np.isnan(found[code, 0]):
            told[code] = told[code] or error
    kinds = ["+".join(kind for kind in MODALITIES if kind in each) for each in seen]
    least = _least(familiarity_of(parts), codes)
    return names, Prediction(0, found, told, kinds, familiarity=least, task=parts[0].task)


def write_predictions(predicted: Predictions, predictor: Predictor, path: str | Path) -> None:
    """Write the ``predictions.csv`` of labeled cases, as ``Predictor.predict_cases`` does."""
    with np.errstate(divide="ignore"):  # probabilities may be 0
        logs = np.log(predicted.probabilities)
    nothing: list[str | None] = [None] * len(logs)
    task = predictor.task
    part = Prediction(0, logs, nothing, [""] * len(logs), familiarity=predicted.familiarity, task=task)
    truth = [task.written(label) for label in predicted.labels]
    groups = ["" if group is None else group for group in predicted.frame["group"]]
    columns: dict[str, Any] = {"known": MEASURED, "notes": predictor.note_columns, "task": task}
    with prediction_writer(path, predictor.labels, **columns) as write:
        own: dict[str, list[Any]] = dict(zip(MEASURED, (truth, groups), strict=True))
        write(predicted.frame["id"].tolist(), part, own | predictor.notes(part))
