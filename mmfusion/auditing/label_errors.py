"""Likely label errors: rows for which out-of-fold predictions contradict the label.

Source: Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels, Journal of Artificial
Intelligence Research 2021. A row is confidently in a class if its probability reaches the mean over the rows labeled
so; out-of-fold probabilities are those of logistic regression on the features of a trained model's towers.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold

from mmfusion.artifacts.folder import read_config, resolve_artifact
from mmfusion.auditing.audited_data import AuditedData
from mmfusion.auditing.findings import Finding
from mmfusion.files import short_hash, written_whole
from mmfusion.inference.features import stream_features
from mmfusion.inference.predictor import Predictor

#: Number of folds of the regression, and its regularization (scikit-learn's C, for standardized features).
FOLDS, STRENGTH = 5, 1e-2


def confident_errors(labels: ArrayLike, probabilities: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows confidently in another class than their label, most confident first, and that class.

    Args:
        labels: (N,) int.
        probabilities: (N, C), out of fold.

    Returns:
        (K,) row indices and (K,) classes, ordered by the probability of the class minus that of the label.

    """
    y, p = np.asarray(labels), np.asarray(probabilities, dtype=np.float64)
    classes, counts = range(p.shape[1]), np.bincount(y, minlength=p.shape[1])
    bars = np.array([p[y == c, c].mean() if counts[c] else np.inf for c in classes])
    confident = np.where(p >= bars, p, -np.inf)
    found = confident.argmax(axis=1)
    rows = np.flatnonzero(np.isfinite(confident.max(axis=1)) & (found != y))
    margin = p[rows, found[rows]] - p[rows, y[rows]]
    order = np.argsort(-margin, kind="stable")
    return rows[order], found[rows[order]]


def out_of_fold(features: ArrayLike, labels: ArrayLike, groups: ArrayLike, seed: int = 0) -> NDArray[np.float64]:
    """(N, C) out-of-fold probabilities of logistic regression on features (N, D), with folds by group."""
    x, y = np.asarray(features, dtype=np.float64), np.asarray(labels)
    found = np.zeros((len(y), y.max() + 1))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for inside, held_out in folds.split(x, y, groups):
        mean, scale = x[inside].mean(axis=0), x[inside].std(axis=0)
        scale[scale < 1e-6] = 1.0
        fitted = LogisticRegression(C=STRENGTH, max_iter=300).fit((x[inside] - mean) / scale, y[inside])
        columns = fitted.classes_
        found[np.ix_(held_out, columns)] = fitted.predict_proba((x[held_out] - mean) / scale)
    return found


def check_label_errors(data: AuditedData, model: str, cache: str | None) -> Iterator[Finding]:
    """Rows with a likely wrong label, according to the features of a trained model.

    Args:
        data: The rows.
        model: Name of the model; its classes may differ from those of the data.
        cache: Folder with cached features; None computes them.
    """
    data.cases.question.need_one_class("the search for label errors")
    features, readable = _features(data, model, cache)
    names = sorted(set(data.labels[readable]))
    labels = np.array([names.index(label) for label in data.labels[readable]])
    groups = data.groups[readable]
    fewest = min(len(set(groups[labels == c])) for c in range(len(names)))
    if len(names) < 2 or fewest < 2:
        yield Finding("label_error", "note", "too few patients in a class to detect wrong labels", "")
        return
    p = out_of_fold(features, labels, groups)
    rows, others = confident_errors(labels, p)
    accuracy = float((p.argmax(axis=1) == labels).mean())
    if not len(rows):
        return
    ids = data.frame["id"].to_numpy()[readable]
    told = [
        f"{ids[row]}: {names[labels[row]]}, perhaps {names[other]}" for row, other in zip(rows, others, strict=True)
    ]
    share = f"{len(rows):,} of {len(labels):,} rows ({len(rows) / len(labels):.1%})"
    yield Finding(
        "label_error",
        "warning" if len(rows) > 0.01 * len(labels) else "note",
        f"{share} look like another class in cross-validation, such as {told[0]}",
        "check them in this order; the regression is correct for "
        f"{accuracy:.0%} of the rows, so some are hard rather than wrong",
        rows=told,
        details={"model": model, "accuracy": accuracy},
    )


def _features(data: AuditedData, model: str, cache: str | None) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Pooled features (M, D) of all towers, and a mask (N,) of readable rows."""
    path = None
    if cache is not None:
        # a model retrained under the same name has other weights
        made_of = read_config(resolve_artifact(model)), data.cases.fingerprint(), str(data.cases.image_root.resolve())
        path = Path(cache).expanduser() / f"label-errors-{short_hash(made_of)}.npz"
        if path.is_file():
            with np.load(path, allow_pickle=False) as kept:
                return kept["features"], kept["readable"]
    parts, readable = [], []
    for _, features, errors in stream_features(Predictor.from_pretrained(model), data.cases, description="Features"):
        readable += [error is None for error in errors]
        if features:
            parts.append(torch.cat([each.pooled.float() for each in features.values()], dim=1).cpu().numpy())
    found, good = np.concatenate(parts), np.array(readable)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as partial_path, partial_path.open("wb") as file:
            np.savez(file, features=found, readable=good)
    return found, good
