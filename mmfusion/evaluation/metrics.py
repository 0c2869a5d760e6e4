"""Metrics of a classifier, by name. One class is one metric; further ones are registered by whoever needs them::

    @register("metric", "mcc")
    class MCC(Metric):
        \"\"\"Matthews correlation coefficient.\"\"\"

        title, meaning = "MCC", "correlation of predicted and true classes; 1 is best"

        def __call__(self, rows: Weighted) -> NDArray[np.float64]: ...

Its value then stands, with an interval, wherever those of mmfusion do, and ``train.metric`` may name it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mmfusion import registry
from mmfusion.evaluation.weighted import Floats, Rows, Weighted, checked, mean_over_classes, ratio
from mmfusion.registry import register
from mmfusion.results import HEADLINE
from mmfusion.task import Task


class Metric:
    """A figure of labels and probabilities.

    Attributes:
        name: What it is registered as.
        title: What tables call it.
        meaning: One line for readers who do not know it.
        higher_is_better: Its direction.
        class_name: Name of its figure of one class, e.g. ``recall``, which then has an interval too; None without one.
        tasks: Names of the tasks that it serves. One that serves several reads what their rows have in common.
    """

    name: str
    title: str
    meaning: str
    higher_is_better: bool = True
    class_name: str | None = None
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)

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
    tasks = ("multiclass", "ordinal")

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.correct)


@register("metric", "balanced_accuracy")
class BalancedAccuracy(Metric):
    """Mean recall over the classes that have rows."""

    title, meaning = "balanced accuracy", "mean sensitivity of the classes, each counted alike"
    tasks = ("multiclass", "ordinal")
    class_name = "recall"

    def by_class(self, rows: Weighted) -> Floats:
        return rows.recall


@register("metric", "macro_f1")
class MacroF1(Metric):
    """Mean F1 over the classes that occur in labels or predictions, as scikit-learn's default."""

    title, meaning = "macro F1", "mean of the classes' F1"
    tasks = ("multiclass", "ordinal", "multilabel")

    def by_class(self, rows: Weighted) -> Floats:
        return rows.f1


@register("metric", "macro_auroc")
class MacroAUROC(Metric):
    """Mean one-vs-rest area under the ROC curve over the classes that have both positive and negative rows."""

    title, meaning = "AUROC", "mean area under the classes' ROC curves"
    tasks = ("multiclass", "ordinal", "multilabel")
    class_name = "auroc"

    def by_class(self, rows: Weighted) -> Floats:
        return rows.auroc


@register("metric", "ece")
class CalibrationError(Metric):
    """Expected calibration error of the top label, in bins of confidence (Guo et al., ICML 2017, eq. 5)."""

    title, meaning = "ECE", "calibration error: mean distance of confidence from accuracy; 0 is best"
    tasks = ("multiclass", "ordinal", "multilabel")
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.calibration_error


@register("metric", "nll")
class NegativeLogLikelihood(Metric):
    """Mean negative natural logarithm of the true class's probability."""

    title, meaning = "NLL", "negative log-likelihood; 0 is best"
    tasks = ("multiclass", "ordinal", "multilabel")
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.surprise)


@register("metric", "brier")
class Brier(Metric):
    """Mean squared distance of the probabilities from the one-hot label, summed over classes."""

    title, meaning = "brier", "squared distance of the probabilities from the truth, 0 to 2; 0 is best"
    tasks = ("multiclass", "ordinal", "multilabel")
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.squared_distance)


@register("metric", "macro_average_precision")
class MacroAveragePrecision(Metric):
    """Mean average precision, the area under the precision-recall curve in steps, over the labels that have rows."""

    title, meaning = "average precision", "mean precision over the labels' ranks; a guess has the label's frequency"
    class_name = "average_precision"
    tasks = ("multilabel",)

    def by_class(self, rows: Any) -> Floats:
        values: Floats = rows.average_precision
        return values


@register("metric", "kappa")
class QuadraticKappa(Metric):
    """Agreement of grades beyond chance, an error counting by its square (Cohen 1968)."""

    title, meaning = "kappa", "quadratic-weighted agreement of the grades; 0 is chance, 1 is best"
    tasks = ("ordinal",)

    def __call__(self, rows: Weighted) -> Floats:
        true, said = rows.labels.astype(np.float64), rows.rows.predicted.astype(np.float64)
        by_chance = rows.mean(true**2) + rows.mean(said**2) - 2 * rows.mean(true) * rows.mean(said)
        return 1 - ratio(rows.mean((true - said) ** 2), by_chance)


@register("metric", "mae_grades")
class GradeError(Metric):
    """Mean number of grades between the true and the named one."""

    title, meaning = "MAE (grades)", "mean number of grades that the answer is off; 0 is best"
    higher_is_better = False
    tasks = ("ordinal",)

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(np.abs(rows.labels - rows.rows.predicted).astype(np.float64))


class _OfNumbers(Metric):
    """A figure of each target, of which rows of numbers know it by its name."""

    tasks = ("regression",)

    def by_class(self, rows: Any) -> Floats:
        assert self.class_name is not None
        values: Floats = getattr(rows, self.class_name)
        return values


@register("metric", "mae")
class MeanAbsoluteError(_OfNumbers):
    """Mean absolute error in the target's unit; of several targets their mean."""

    title, meaning = "MAE", "mean absolute error, in the target's unit; 0 is best"
    higher_is_better, class_name = False, "mae"


@register("metric", "rmse")
class RootMeanSquaredError(_OfNumbers):
    """Root of the mean squared error in the target's unit; of several targets their mean."""

    title, meaning = "RMSE", "root of the mean squared error, in the target's unit; 0 is best"
    higher_is_better, class_name = False, "rmse"


@register("metric", "r2")
class ExplainedVariance(_OfNumbers):
    """Coefficient of determination: 1 less the squared error over that of the rows' own mean."""

    title, meaning = "R2", "share of the variance that is explained; the mean of the rows has 0, 1 is best"
    class_name = "r2"


@register("metric", "concordance")
class Concordance(_OfNumbers):
    """Lin's concordance correlation coefficient (Lin 1989): agreement of values, their level and scale included."""

    title, meaning = "concordance", "Lin's correlation of the values with the true ones; 1 is perfect agreement"
    class_name = "concordance"


class Metrics(Mapping[str, Metric]):
    """The registered metrics of a task by name: those of mmfusion in their order, then all others.

    Args:
        task: Name of the task; None takes the metrics of all.
        first: Names in the order in which they are shown.
    """

    def __init__(self, task: str | None, first: Sequence[str] = ()) -> None:
        self._task, self._first = task, tuple(first)

    def __getitem__(self, name: str) -> Metric:
        if name not in self._names():
            raise KeyError(name)
        metric: Metric = registry.create("metric", name)
        metric.name = name
        return metric

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def _names(self) -> list[str]:
        names = registry.names("metric")
        if self._task is not None:
            names = [name for name in names if self._task in registry.get("metric", name).tasks]
        return [*self._first, *(name for name in names if name not in self._first)]


METRICS: Mapping[str, Metric] = Metrics("multiclass", HEADLINE)

#: The metrics of all tasks.
EVERY_METRIC: Mapping[str, Metric] = Metrics(None)


def classification_metrics(
    labels: ArrayLike, probabilities: ArrayLike, class_names: Sequence[str], task: Task | None = None
) -> dict[str, Any]:
    """All figures of one evaluation, ready for JSON. Classes absent from the labels do no harm.

    Args:
        labels: (N,) int, the true class of each row.
        probabilities: (N, C), each row sums to one.
        class_names: The C names, in the order of the columns.
        task: A task whose rows are read as those of ``multiclass``, with metrics of its own; None takes that one.

    Returns:
        ``n``, ``classes``, ``absent_classes`` (those without a row in ``labels``), the value of each of
        :data:`METRICS` (None where undefined), ``per_class`` (name -> precision, recall, f1, auroc, support) and
        ``confusion_matrix`` (C x C counts, rows are true classes).

    Raises:
        ValueError: See :func:`~mmfusion.evaluation.weighted.checked`.
    """
    checked(labels, probabilities, class_names)
    rows, count = plain(labels, probabilities, task), len(class_names)
    metrics = (METRICS if task is None else task.metrics).values()
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


def headline(metrics: Mapping[str, Any], known: Iterable[str] = METRICS) -> dict[str, float]:
    """The values of the ``known`` metrics among the figures; those that are undefined (None) are left out."""
    return {name: metrics[name] for name in known if metrics.get(name) is not None}


def metric_value(name: str, labels: ArrayLike, probabilities: ArrayLike, task: Task | None = None) -> float | None:
    """The value of one metric for labels and answers, of ``multiclass`` (N,) and (N, C); None where it is undefined."""
    return _value(EVERY_METRIC[name](plain(labels, probabilities, task))[0])


def class_values(name: str, labels: ArrayLike, probabilities: ArrayLike) -> list[float | None]:
    """The values of one metric for each class, as :func:`metric_value`."""
    return [_value(value) for value in METRICS[name].by_class(plain(labels, probabilities))[0]]


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Expected calibration error of the top label: equal-width bins ``(lo, hi]`` of confidence, weighted by their rows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 5.
    """
    return float(METRICS["ece"](plain(labels, probabilities))[0])


def plain(labels: ArrayLike, probabilities: ArrayLike, task: Task | None = None) -> Any:
    """The rows of a task under one weighting, in which all count alike."""
    rows = Rows(labels, probabilities) if task is None else task.rows(labels, probabilities)
    return rows.weighted(np.ones((1, len(rows))))


def _value(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)
