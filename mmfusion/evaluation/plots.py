"""Pictures of an evaluation and of a training run, as PNG files, drawn without pyplot's global state."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from mmfusion.evaluation.calibration import reliability
from mmfusion.evaluation.metrics import METRICS, class_values, expected_calibration_error
from mmfusion.evaluation.selective import risk_coverage


def _save(figure: Figure, path: str | Path) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    return path


def plot_confusion_matrix(counts: ArrayLike, class_names: Sequence[str], path: str | Path) -> Path:
    """Counts in the cells, colour by the share of the true class (row).

    Args:
        counts: (C, C) ints, rows are true classes.
        class_names: the C names.
        path: PNG file to write.
    """
    counts = np.asarray(counts)
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    side = max(4.2, 1.6 + 0.62 * len(class_names))
    figure = Figure(figsize=(side + 1.1, side), layout="constrained")
    axes = figure.add_subplot()
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [f"{name} ({n})" for name, n in zip(class_names, rows[:, 0], strict=True)])
    axes.set_xlabel("predicted")
    axes.set_ylabel("true (rows)")
    for i, j in np.ndindex(*counts.shape):
        colour = "white" if share[i, j] > 0.55 else "black"
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=9)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    return _save(figure, path)


def plot_roc(labels: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str], path: str | Path) -> Path:
    """One-vs-rest ROC curves with their areas; a class without both positive and negative rows is named, not drawn.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        class_names: the C names.
        path: PNG file to write.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    areas = class_values("macro_auroc", y, p)
    figure = Figure(figsize=(7.6, 4.8), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    for c, name in enumerate(class_names):
        positive, colour = y == c, _colour(c)
        if areas[c] is not None:
            false_rate, true_rate, _ = roc_curve(positive, p[:, c])
            label = f"{name}  {areas[c]:.3f}  (n = {positive.sum()})"
            axes.plot(false_rate, true_rate, color=colour, linewidth=1.6, label=label)
        else:
            axes.plot([], [], color=colour, label=f"{name}  undefined  (n = {positive.sum()})")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), xlabel="false positive rate", ylabel="true positive rate")
    axes.set_aspect("equal")
    axes.grid(alpha=0.25)
    figure.legend(title="class, area under the curve", loc="outside right upper", fontsize=9, frameon=False)
    return _save(figure, path)


def plot_reliability(
    labels: ArrayLike, probabilities: ArrayLike, path: str | Path, before: ArrayLike | None = None
) -> Path:
    """Accuracy against confidence in bins, above the number of rows in each; on the diagonal, 0.8 means eight in ten.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        path: PNG file to write.
        before: (N, C), the same without calibration, drawn beside.
    """
    figure = Figure(figsize=(5.0, 5.2), layout="constrained")
    axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], color="0.7", linestyle="--", linewidth=1)
    if before is not None:
        ece = expected_calibration_error(labels, before)
        bins = reliability(labels, before)
        axes.plot(*_filled(bins), "o--", color="tab:gray", label=f"not calibrated, ECE {ece:.3f}", markersize=4)
    bins = reliability(labels, probabilities)
    name = "as predicted" if before is None else "calibrated"
    ece = expected_calibration_error(labels, probabilities)
    axes.plot(*_filled(bins), "o-", color="tab:blue", label=f"{name}, ECE {ece:.3f}", markersize=5)
    edges = np.linspace(0, 1, len(bins["count"]) + 1)
    counts.bar(edges[:-1], bins["count"], width=np.diff(edges), align="edge", color="tab:blue", alpha=0.6)
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), ylabel="accuracy")
    counts.set(xlabel="confidence (largest probability)", ylabel="rows")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, frameon=False, loc="upper left")
    return _save(figure, path)


def _filled(bins: dict[str, Any]) -> tuple[Any, Any]:
    there = bins["count"] > 0
    return bins["confidence"][there], bins["accuracy"][there]


def plot_risk_coverage(labels: ArrayLike, probabilities: ArrayLike, path: str | Path) -> Path:
    """Share of errors among the surest cases, against how many of the cases those are.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        path: PNG file to write.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    wrong = p.argmax(axis=1) != y
    coverage, risk = risk_coverage(wrong, p.max(axis=1))
    _, best = risk_coverage(wrong, -wrong.astype(float))
    figure = Figure(figsize=(6.2, 4.2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(coverage, risk, color="tab:blue", linewidth=1.8, label=f"surest first, area {risk.mean():.3f}")
    axes.plot(coverage, best, color="tab:green", linestyle=":", label=f"errors last, area {best.mean():.3f}")
    axes.axhline(wrong.mean(), color="0.6", linestyle="--", linewidth=1, label="in any order")
    axes.set(xlim=(0, 1.01), ylim=(0, None), xlabel="share of the cases answered", ylabel="errors among them")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=9, frameon=False)
    return _save(figure, path)


def plot_training_curves(log: str | Path, path: str | Path) -> Path:
    """Losses and validation figures over the epochs of a run.

    Args:
        log: the run's ``metrics.jsonl``: one JSON object per epoch with ``epoch``, ``train_loss`` and validation
            figures.
        path: PNG file to write.

    Raises:
        FileNotFoundError: there is no such log.
    """
    records: list[dict[str, Any]] = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    losses, figures = figure.subplots(1, 2)
    shares = [name for name, metric in METRICS.items() if metric.higher_is_better]
    for axes, names in ((losses, ("train_loss", "nll")), (figures, shares)):
        for name in names:
            points = [(r["epoch"], r[name]) for r in records if r.get(name) is not None]
            if points:
                label = {"train_loss": "training loss", "nll": "validation nll"}.get(name, name.replace("_", " "))
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, linewidth=1.5, label=label)
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        if axes.lines:
            axes.legend(fontsize=9, frameon=False)
    losses.set_title("loss")
    figures.set(title="validation", ylim=(0, 1.02))
    return _save(figure, path)


def _colour(index: int) -> Any:
    palette = colormaps["tab10" if index < 10 else "tab20"]
    return palette(index % palette.N)
