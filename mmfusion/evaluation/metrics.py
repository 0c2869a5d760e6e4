"""Metrics of a classifier, by name. One class is one metric; further ones are registered by whoever needs them::

    @register("metric", "mcc")
    class MCC(Metric):
        \"\"\"Matthews correlation coefficient.\"\"\"

        title, meaning = "MCC", "correlation of predicted and true classes; 1 is best"

        def __call__(self, rows: Weighted) -> NDArray[np.float64]: ...

Its value then stands, with an interval, wherever those of mmfusion do, and ``train.metric`` may name it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mmfusion import registry
from mmfusion.evaluation.weighted import Floats, Rows, Weighted, checked, mean_over_classes, ratio
from mmfusion.registry import register
from mmfusion.results import HEADLINE


class Metric:
    """A figure of labels and probabilities.

    Attributes:
        name: What it is registered as.
        title: What tables call it.
        meaning: One line for readers who do not know it.
        higher_is_better: Its direction.
        class_name: Name of its figure of one class, e.g. ``recall``, which then has an interval too; None without one.
    """

    name: str
    title: str
    meaning: str
    higher_is_better: bool = True
    class_name: str | None = None

    def __call__(self, rows: Weighted) -> Floats:
        """Values (R,) under R weightings, NaN where undefined: here the mean over the classes where it is defined."""
        return mean_over_classes(self.by_class(rows))

    def by_class(self, rows: Weighted) -> Floats:
        """Values (R, C) of each class, NaN where undefined."""
        raise NotImplementedError(f"The metric {self.name!r} defines neither __call__ nor by_class.")


@register("metric", "accuracy")
class Accuracy(Metric):
    """Share of rows whose likeliest class is the true one."""

    title, meaning = "accuracy", "share of rows that are right"

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.correct)


@register("metric", "balanced_accuracy")
class BalancedAccuracy(Metric):
    """Mean recall over the classes that have rows."""

    title, meaning = "balanced accuracy", "mean sensitivity of the classes, each counted alike"
    class_name = "recall"

    def by_class(self, rows: Weighted) -> Floats:
        return rows.recall


@register("metric", "macro_f1")
class MacroF1(Metric):
    """Mean F1 over the classes that occur in labels or predictions, as scikit-learn's default."""

    title, meaning = "macro F1", "mean of the classes' F1"

    def by_class(self, rows: Weighted) -> Floats:
        return rows.f1


@register("metric", "macro_auroc")
class MacroAUROC(Metric):
    """Mean one-vs-rest area under the ROC curve over the classes that have both positive and negative rows."""

    title, meaning = "AUROC", "mean area under the classes' ROC curves"
    class_name = "auroc"

    def by_class(self, rows: Weighted) -> Floats:
        return rows.auroc


@register("metric", "ece")
class CalibrationError(Metric):
    """Expected calibration error of the top label, in bins of confidence (Guo et al., ICML 2017, eq. 5)."""

    title, meaning = "ECE", "calibration error: mean distance of confidence from accuracy; 0 is best"
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        # bins count by their rows: the sum of the gaps in a bin is its weight times the gap of its means
        return ratio(np.abs(rows.sum(rows.rows.calibration_gaps)).sum(axis=1), rows.total)


@register("metric", "nll")
class NegativeLogLikelihood(Metric):
    """Mean negative natural logarithm of the true class's probability."""

    title, meaning = "NLL", "negative log-likelihood; 0 is best"
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.surprise)


@register("metric", "brier")
class Brier(Metric):
    """Mean squared distance of the probabilities from the one-hot label, summed over classes."""

    title, meaning = "brier", "squared distance of the probabilities from the truth, 0 to 2; 0 is best"
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.squared_distance)


class _Metrics(Mapping[str, Metric]):
    """The registered metrics by name: those of mmfusion in their order, then all others."""

    def __getitem__(self, name: str) -> Metric:
        if name not in registry.names("metric"):
            raise KeyError(name)
        metric: Metric = registry.create("metric", name)
        metric.name = name
        return metric

    def __iter__(self) -> Iterator[str]:
        return iter([*HEADLINE, *(name for name in registry.names("metric") if name not in HEADLINE)])

    def __len__(self) -> int:
        return len(registry.names("metric"))


METRICS: Mapping[str, Metric] = _Metrics()


def classification_metrics(labels: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str]) -> dict[str, Any]:
    """All figures of one evaluation, ready for JSON. Classes absent from the labels do no harm.

    Args:
        labels: (N,) int, the true class of each row.
        probabilities: (N, C), each row sums to one.
        class_names: The C names, in the order of the columns.

    Returns:
        ``n``, ``classes``, ``absent_classes`` (those without a row in ``labels``), the value of each of
        :data:`METRICS` (None where undefined), ``per_class`` (name -> precision, recall, f1, auroc, support) and
        ``confusion_matrix`` (C x C counts, rows are true classes).

    Raises:
        ValueError: See :func:`~mmfusion.evaluation.weighted.checked`.
    """
    checked(labels, probabilities, class_names)
    rows, metrics, count = plain(labels, probabilities), METRICS.values(), len(class_names)
    # a class that is never predicted has a precision of 0, as in scikit-learn
    columns = {name: np.nan_to_num(getattr(rows, name)[0]) for name in ("precision", "recall", "f1")}
    columns["auroc"] = rows.auroc[0]
    columns |= {m.class_name: m.by_class(rows)[0] for m in metrics if m.class_name and m.class_name not in columns}
    support = rows.support[0].astype(int)
    cells = np.bincount(rows.labels * count + rows.rows.predicted, minlength=count**2)
    return {
        "n": len(rows.labels),
        **{metric.name: _value(metric(rows)[0]) for metric in metrics},
        "classes": list(class_names),
        "absent_classes": [name for name, here in zip(class_names, support, strict=True) if not here],
        "per_class": {
            name: {figure: _value(values[c]) for figure, values in columns.items()} | {"support": int(support[c])}
            for c, name in enumerate(class_names)
        },
        "confusion_matrix": cells.reshape(count, count).tolist(),
    }


def headline(metrics: Mapping[str, Any]) -> dict[str, float]:
    """The values of :data:`METRICS` among the figures; those that are undefined (None) are left out."""
    return {name: metrics[name] for name in METRICS if metrics.get(name) is not None}


def metric_value(name: str, labels: ArrayLike, probabilities: ArrayLike) -> float | None:
    """The value of one of :data:`METRICS` for labels (N,) and probabilities (N, C), None where it is undefined."""
    return _value(METRICS[name](plain(labels, probabilities))[0])


def class_values(name: str, labels: ArrayLike, probabilities: ArrayLike) -> list[float | None]:
    """The values of one metric for each class, as :func:`metric_value`."""
    return [_value(value) for value in METRICS[name].by_class(plain(labels, probabilities))[0]]


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Expected calibration error of the top label: equal-width bins ``(lo, hi]`` of confidence, weighted by their rows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 5.
    """
    return float(METRICS["ece"](plain(labels, probabilities))[0])


def plain(labels: ArrayLike, probabilities: ArrayLike) -> Weighted:
    """The rows under one weighting, in which all count alike."""
    rows = Rows(labels, probabilities)
    return Weighted(rows, np.ones((1, len(rows))))


def _value(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)
