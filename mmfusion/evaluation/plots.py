"""Plots of an evaluation and of a training run as PNG files, without pyplot's global state."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from mmfusion.evaluation.calibration import reliability
from mmfusion.evaluation.metrics import METRICS, class_values, expected_calibration_error
from mmfusion.evaluation.selective import risk_coverage
from mmfusion.files import write_figure

#: Axis limits and diagonal of a unit square.
_DIAGONAL: dict[str, Any] = {"color": "0.7", "linestyle": "--", "linewidth": 1}
_SQUARE: dict[str, Any] = {"xlim": (-0.01, 1.01), "ylim": (-0.01, 1.01)}
_LEGEND: dict[str, Any] = {"fontsize": 9, "frameon": False}


def canvas(width: float, height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, Any]:
    """A figure with a size in inches and its axes (an array if there are several)."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, **options)


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG, creating parent folders."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_figure(path, figure, dpi=130)
    return path


def plot_confusion_matrix(counts: ArrayLike, class_names: Sequence[str], path: str | Path) -> Path:
    """Counts in the cells, colored by the share of the true class (row).

    Args:
        counts: (C, C) ints, rows are true classes.
        class_names: The C names.
        path: PNG file to write.
    """
    counts = np.asarray(counts)
    rows = counts.sum(axis=1, keepdims=True)
    share = np.divide(counts, rows, out=np.zeros(counts.shape), where=rows > 0)
    side = max(4.2, 1.6 + 0.62 * len(class_names))
    figure, axes = canvas(side + 1.1, side)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    ticks = np.arange(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(ticks, [f"{name} ({n})" for name, n in zip(class_names, rows[:, 0], strict=True)])
    axes.set(xlabel="predicted", ylabel="true (rows)")
    for i, j in np.ndindex(*counts.shape):
        colour = "white" if share[i, j] > 0.55 else "black"
        axes.text(j, i, f"{counts[i, j]}", ha="center", va="center", color=colour, fontsize=9)
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046)
    return save(figure, path)


def plot_roc(labels: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str], path: str | Path) -> Path:
    """One-vs-rest ROC curves with their areas; classes without positive and negative rows are only listed.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        class_names: The C names.
        path: PNG file to write.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    areas = class_values("macro_auroc", y, p)
    figure, axes = canvas(7.6, 4.8)
    axes.plot([0, 1], [0, 1], **_DIAGONAL)
    for c, name in enumerate(class_names):
        positive, area = y == c, areas[c]
        rates = ([], []) if area is None else roc_curve(positive, p[:, c])[:2]
        label = f"{name}  {'undefined' if area is None else f'{area:.3f}'}  (n = {positive.sum()})"
        palette = colormaps["tab10" if c < 10 else "tab20"]
        axes.plot(*rates, color=palette(c % palette.N), linewidth=1.6, label=label)
    axes.set(**_SQUARE, xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes.grid(alpha=0.25)
    figure.legend(title="class, area under the curve", loc="outside right upper", **_LEGEND)
    return save(figure, path)


def plot_reliability(
    labels: ArrayLike, probabilities: ArrayLike, path: str | Path, before: ArrayLike | None = None
) -> Path:
    """Accuracy against confidence in bins, above the number of rows per bin.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        path: PNG file to write.
        before: (N, C) uncalibrated probabilities, drawn for comparison.
    """
    figure, (axes, counts) = canvas(5.0, 5.2, 2, 1, sharex=True, height_ratios=(4, 1))
    axes.plot([0, 1], [0, 1], **_DIAGONAL)

    def draw(name: str, p: ArrayLike, line: str, colour: str, size: int) -> Any:
        bins, ece = reliability(labels, p), expected_calibration_error(labels, p)
        there, label = bins["count"] > 0, f"{name}, ECE {ece:.3f}"
        axes.plot(bins["confidence"][there], bins["accuracy"][there], line, color=colour, label=label, markersize=size)
        return bins["count"]

    if before is not None:
        draw("not calibrated", before, "o--", "tab:gray", 4)
    name = "as predicted" if before is None else "calibrated"
    count = draw(name, probabilities, "o-", "tab:blue", 5)
    edges = np.linspace(0, 1, len(count) + 1)
    counts.bar(edges[:-1], count, width=np.diff(edges), align="edge", color="tab:blue", alpha=0.6)
    axes.set(**_SQUARE, ylabel="accuracy")
    counts.set(xlabel="confidence (largest probability)", ylabel="rows")
    axes.grid(alpha=0.25)
    axes.legend(loc="upper left", **_LEGEND)
    return save(figure, path)


def plot_risk_coverage(labels: ArrayLike, probabilities: ArrayLike, path: str | Path) -> Path:
    """Error rate among the most confident cases against coverage.

    Args:
        labels: (N,) int.
        probabilities: (N, C).
        path: PNG file to write.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    wrong = p.argmax(axis=1) != y
    coverage, risk = risk_coverage(wrong, p.max(axis=1))
    _, best = risk_coverage(wrong, -wrong.astype(float))
    figure, axes = canvas(6.2, 4.2)
    axes.plot(coverage, risk, color="tab:blue", linewidth=1.8, label=f"most confident first, area {risk.mean():.3f}")
    axes.plot(coverage, best, color="tab:green", linestyle=":", label=f"errors last, area {best.mean():.3f}")
    axes.axhline(wrong.mean(), color="0.6", linestyle="--", linewidth=1, label="random order")
    axes.set(xlim=(0, 1.01), ylim=(0, None), xlabel="coverage (share of the cases)", ylabel="error rate")
    axes.grid(alpha=0.25)
    axes.legend(**_LEGEND)
    return save(figure, path)


def plot_training_curves(log: str | Path, path: str | Path) -> Path:
    """Losses and validation metrics over the epochs of a run.

    Args:
        log: The run's ``metrics.jsonl``: one JSON object per epoch with ``epoch``, ``train_loss`` and validation
            metrics.
        path: PNG file to write.

    Raises:
        FileNotFoundError: The log does not exist.
    """
    records: list[dict[str, Any]] = [json.loads(line) for line in Path(log).read_text(encoding="utf-8").splitlines()]
    figure, (losses, figures) = canvas(9, 3.8, 1, 2)
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
            axes.legend(**_LEGEND)
    losses.set_title("loss")
    figures.set(title="validation", ylim=(0, 1.02))
    return save(figure, path)


def plot_label_curves(labels: ArrayLike, probabilities: ArrayLike, names: Sequence[str], path: str | Path) -> Path:
    """ROC curve of each label, over the rows where it is known.

    Args:
        labels: (N, C) 1, 0 or NaN for unknown.
        probabilities: (N, C).
        names: The C names.
        path: PNG file to write.
    """
    y, p = np.asarray(labels), np.asarray(probabilities)
    figure, axes = canvas(7.6, 4.8)
    axes.plot([0, 1], [0, 1], **_DIAGONAL)
    for c, name in enumerate(names):
        known = ~np.isnan(y[:, c])
        positive = y[known, c] == 1
        rates = roc_curve(positive, p[known, c])[:2] if 0 < positive.sum() < len(positive) else ([], [])
        palette = colormaps["tab10" if c < 10 else "tab20"]
        label = f"{name}  (n = {positive.sum()} of {len(positive)})"
        axes.plot(*rates, color=palette(c % palette.N), linewidth=1.6, label=label)
    axes.set(**_SQUARE, xlabel="false positive rate", ylabel="true positive rate", aspect="equal")
    axes.grid(alpha=0.25)
    figure.legend(title="label", loc="outside right upper", **_LEGEND)
    return save(figure, path)


def plot_numbers(labels: ArrayLike, answers: ArrayLike, names: Sequence[str], path: str | Path) -> Path:
    """Predicted against true numbers, one panel per target.

    Args:
        labels: (N, T), NaN where unknown.
        answers: (N, at least T), the first T columns are the predicted values.
        names: The T names.
        path: PNG file to write.
    """
    y, said = np.asarray(labels), np.asarray(answers)
    figure, axes = canvas(4.6 * len(names), 4.4, 1, len(names), squeeze=False)
    for c, name in enumerate(names):
        known, axis = ~np.isnan(y[:, c]), axes[0, c]
        axis.plot(y[known, c], said[known, c], "o", markersize=3, alpha=0.5, color="tab:blue")
        axis.axline((float(np.nanmean(y[:, c])),) * 2, slope=1, **_DIAGONAL)
        axis.set(title=name, xlabel="true", ylabel="predicted")
        axis.grid(alpha=0.25)
    return save(figure, path)
