"""Metrics by name. A metric is a class; register your own as follows::

    @register("metric", "mcc")
    class MCC(Metric):
        \"\"\"Matthews correlation coefficient.\"\"\"

        title, meaning = "MCC", "correlation of predicted and true classes; 1 is best"

        def __call__(self, rows: Weighted) -> NDArray[np.float64]: ...

Its value and interval then appear with the built-in ones, and ``train.metric`` accepts its name.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import inf
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from mmfusion import registry
from mmfusion.evaluation.weighted import Floats, Rows, Weighted, checked, mean_over_classes, ratio
from mmfusion.registry import register
from mmfusion.results import HEADLINE
from mmfusion.task import Task


class Metric:
    """A metric of labels and probabilities.

    Attributes:
        name: Registered name.
        title: Name in tables.
        meaning: Explanation in one line.
        higher_is_better: Whether larger values are better.
        class_name: Name of the per-class metric, e.g. ``recall``, which also gets an interval; None without one.
        bounds: Smallest and largest possible value; intervals end there.
        tasks: Names of the supported tasks. With several, it uses the attributes that their rows share.
    """

    name: str
    title: str
    meaning: str
    higher_is_better: bool = True
    class_name: str | None = None
    bounds: tuple[float, float] = (-inf, inf)
    tasks: ClassVar[tuple[str, ...]] = ("multiclass",)

    def __call__(self, rows: Weighted) -> Floats:
        """Values (R,) under R weightings, NaN if undefined; by default the mean over the classes with a value."""
        return mean_over_classes(self.by_class(rows))

    def by_class(self, rows: Weighted) -> Floats:
        """Values (R, C) per class, NaN if undefined."""
        raise NotImplementedError(f"The metric {self.name!r} implements neither __call__ nor by_class.")


@register("metric", "accuracy")
class Accuracy(Metric):
    """Share of rows whose top class is the true one."""

    title, meaning = "accuracy", "share of correct rows"
    bounds = (0, 1)
    tasks = ("multiclass", "ordinal")

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.correct)


@register("metric", "balanced_accuracy")
class BalancedAccuracy(Metric):
    """Mean recall over the classes with rows."""

    title, meaning = "balanced accuracy", "unweighted mean sensitivity of the classes"
    bounds = (0, 1)
    tasks = ("multiclass", "ordinal")
    class_name = "recall"

    def by_class(self, rows: Weighted) -> Floats:
        return rows.recall


@register("metric", "macro_f1")
class MacroF1(Metric):
    """Mean F1 over the classes in labels or predictions, as in scikit-learn."""

    title, meaning = "macro F1", "mean F1 of the classes"
    bounds = (0, 1)
    tasks = ("multiclass", "ordinal", "multilabel")

    def by_class(self, rows: Weighted) -> Floats:
        return rows.f1


@register("metric", "macro_auroc")
class MacroAUROC(Metric):
    """Mean one-vs-rest area under the ROC curve over the classes with both positive and negative rows."""

    title, meaning = "AUROC", "mean one-vs-rest area under the ROC curve"
    bounds = (0, 1)
    tasks = ("multiclass", "ordinal", "multilabel")
    class_name = "auroc"

    def by_class(self, rows: Weighted) -> Floats:
        return rows.auroc


@register("metric", "ece")
class CalibrationError(Metric):
    """Expected calibration error of the top class, in bins of confidence (Guo et al., ICML 2017, eq. 5)."""

    title, meaning = "ECE", "expected calibration error: mean gap between confidence and accuracy; 0 is best"
    bounds = (0, 1)
    tasks = ("multiclass", "ordinal", "multilabel")
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.calibration_error


@register("metric", "nll")
class NegativeLogLikelihood(Metric):
    """Mean negative log probability of the true class."""

    title, meaning = "NLL", "negative log-likelihood; 0 is best"
    bounds = (0, inf)
    tasks = ("multiclass", "ordinal", "multilabel")
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.surprise)


@register("metric", "brier")
class Brier(Metric):
    """Mean squared distance between probabilities and one-hot label, summed over classes."""

    title, meaning = "brier", "squared error of the probabilities, 0 to 2; 0 is best"
    bounds = (0, 2)
    tasks = ("multiclass", "ordinal", "multilabel")
    higher_is_better = False

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(rows.rows.squared_distance)


@register("metric", "macro_average_precision")
class MacroAveragePrecision(Metric):
    """Mean average precision, the stepwise area under the precision-recall curve, over the labels with rows."""

    title, meaning = "average precision", "area under the precision-recall curve; chance level is the label's frequency"
    bounds = (0, 1)
    class_name = "average_precision"
    tasks = ("multilabel",)

    def by_class(self, rows: Any) -> Floats:
        values: Floats = rows.average_precision
        return values


@register("metric", "kappa")
class QuadraticKappa(Metric):
    """Quadratically weighted kappa, the agreement of grades beyond chance (Cohen 1968)."""

    title, meaning = "kappa", "quadratically weighted kappa of the grades; 0 is chance, 1 is best"
    bounds = (-1, 1)
    tasks = ("ordinal",)

    def __call__(self, rows: Weighted) -> Floats:
        true, said = rows.labels.astype(np.float64), rows.rows.predicted.astype(np.float64)
        by_chance = rows.mean(true**2) + rows.mean(said**2) - 2 * rows.mean(true) * rows.mean(said)
        return 1 - ratio(rows.mean((true - said) ** 2), by_chance)


@register("metric", "mae_grades")
class GradeError(Metric):
    """Mean absolute difference between true and predicted grade."""

    title, meaning = "MAE (grades)", "mean absolute error in grades; 0 is best"
    bounds = (0, inf)
    higher_is_better = False
    tasks = ("ordinal",)

    def __call__(self, rows: Weighted) -> Floats:
        return rows.mean(np.abs(rows.labels - rows.rows.predicted).astype(np.float64))


class _OfNumbers(Metric):
    """A metric computed per target, available on the rows of numbers under the same name."""

    tasks = ("regression",)

    def by_class(self, rows: Any) -> Floats:
        assert self.class_name is not None
        values: Floats = getattr(rows, self.class_name)
        return values


@register("metric", "mae")
class MeanAbsoluteError(_OfNumbers):
    """Mean absolute error in the target's unit, averaged over targets."""

    title, meaning = "MAE", "mean absolute error, in the target's unit; 0 is best"
    bounds = (0, inf)
    higher_is_better, class_name = False, "mae"


@register("metric", "rmse")
class RootMeanSquaredError(_OfNumbers):
    """Root mean squared error in the target's unit, averaged over targets."""

    title, meaning = "RMSE", "root mean squared error, in the target's unit; 0 is best"
    bounds = (0, inf)
    higher_is_better, class_name = False, "rmse"


@register("metric", "r2")
class ExplainedVariance(_OfNumbers):
    """Coefficient of determination: 1 - squared error / squared error of the rows' mean."""

    title, meaning = "R2", "share of explained variance; predicting the mean gives 0, 1 is best"
    bounds = (-inf, 1)
    class_name = "r2"


@register("metric", "concordance")
class Concordance(_OfNumbers):
    """Lin's concordance correlation coefficient (Lin 1989), which includes differences in level and scale."""

    title, meaning = "concordance", "Lin's concordance correlation; 1 is perfect agreement"
    bounds = (-1, 1)
    class_name = "concordance"


class Metrics(Mapping[str, Metric]):
    """The registered metrics of a task by name: built-in ones in a fixed order, then all others.

    Args:
        task: Name of the task; None means all tasks.
        first: Names in display order.
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
    """All metrics of one evaluation, ready for JSON. Classes without labels are allowed.

    Args:
        labels: (N,) int, true classes.
        probabilities: (N, C), each row sums to 1.
        class_names: The C names, in the order of the columns.
        task: A task with rows like those of ``multiclass`` and its own metrics; None means ``multiclass``.

    Returns:
        ``n``, ``classes``, ``absent_classes`` (those without rows in ``labels``), the value of each of
        :data:`METRICS` (None where undefined), ``per_class`` (name -> precision, recall, f1, auroc, support) and
        ``confusion_matrix`` (C x C counts, rows are true classes).

    Raises:
        ValueError: See :func:`~mmfusion.evaluation.weighted.checked`.
    """
    checked(labels, probabilities, class_names)
    rows, count = plain(labels, probabilities, task), len(class_names)
    metrics = (METRICS if task is None else task.metrics).values()
    # a class that is never predicted has precision 0, as in scikit-learn
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
    """The values of the ``known`` metrics, without undefined (None) ones."""
    return {name: metrics[name] for name in known if metrics.get(name) is not None}


def metric_value(name: str, labels: ArrayLike, probabilities: ArrayLike, task: Task | None = None) -> float | None:
    """The value of one metric, for ``multiclass`` from labels (N,) and probabilities (N, C); None if undefined."""
    return _value(EVERY_METRIC[name](plain(labels, probabilities, task))[0])


def class_values(name: str, labels: ArrayLike, probabilities: ArrayLike) -> list[float | None]:
    """The values of one metric per class, as :func:`metric_value`."""
    return [_value(value) for value in METRICS[name].by_class(plain(labels, probabilities))[0]]


def expected_calibration_error(labels: ArrayLike, probabilities: ArrayLike) -> float:
    """Expected calibration error of the top class: equal-width bins ``(lo, hi]`` of confidence, weighted by rows.

    Source: Guo et al., On Calibration of Modern Neural Networks, ICML 2017, eq. 5.
    """
    return float(METRICS["ece"](plain(labels, probabilities))[0])


def plain(labels: ArrayLike, probabilities: ArrayLike, task: Task | None = None) -> Any:
    """The rows of a task with equal weights."""
    rows = Rows(labels, probabilities) if task is None else task.rows(labels, probabilities)
    return rows.weighted(np.ones((1, len(rows))))


def _value(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)
