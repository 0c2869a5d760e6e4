"""Results of an evaluation as dataclasses, saved as ``metrics.json``.

The module has no dependencies on the evaluation code, so model cards can use it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from mmfusion.decisions import DecisionResult
from mmfusion.figures import Bootstrap, Interval, Intervals
from mmfusion.markdown import table
from mmfusion.records import FLAT, OPTIONAL, TRANSIENT, from_plain, to_plain

#: Built-in metrics in display order, followed by registered ones.
HEADLINE = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece", "nll", "brier")

#: Metrics that Markdown omits, unlike metrics.json.
NOT_SHOWN = ("nll", "brier")

#: Per-class metrics in Markdown.
CLASS_FIGURES = ("recall", "precision", "auroc")


@dataclass(frozen=True)
class Calibration:
    """Temperature (above 1 for an overconfident model) fitted on ``n`` rows of the split ``fitted_on``.

    Multilabel models have one per label. Regression models have none, but conformal ``quantiles`` per target for
    intervals with a given ``coverage``.

    ``before`` and ``after`` are ``ece``, ``nll`` and ``brier`` of the evaluated rows without and with it;
    ``prior_strength`` is the restored part of the log prior.
    """

    temperature: float | list[float] | None
    fitted_on: str
    n: int
    before: dict[str, float]
    after: dict[str, float]
    prior_strength: float | None = field(default=None, metadata=OPTIONAL)
    quantiles: list[float] | None = field(default=None, metadata=OPTIONAL)
    coverage: float | None = field(default=None, metadata=OPTIONAL)


def calibration_words(calibration: Mapping[str, Any]) -> str:
    """A calibration in words: ``temperature 1.455 from 1,002 val rows, prior restored with strength 0.5``."""
    temperature = calibration.get("temperature")
    rows = f" from {calibration['n']:,} {calibration['fitted_on']} rows" if calibration["n"] else ""
    strength = calibration.get("prior_strength")
    prior = f", prior restored with strength {strength:g}" if strength else ""
    update = calibration.get("update")
    updated = f", updated for {update['site']} ({update['kind']})" if update else ""
    if temperature is None:
        return f"intervals for {calibration['coverage']:.0%} of the values{rows}"
    each = temperature if isinstance(temperature, list) else [temperature]
    return f"temperature {', '.join(f'{t:.3f}' for t in each)}{rows}{prior}{updated}"


@dataclass(frozen=True)
class CoveragePoint:
    """Accuracy and lowest ``confidence`` of the most confident share (``coverage``) of cases."""

    coverage: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Selective:
    """Selective prediction: mean risk over all coverages, and points of the risk-coverage curve.

    ``excess_aurc`` is ``aurc`` minus that of a perfect ranking, with all errors last.
    """

    aurc: float
    excess_aurc: float
    at_coverage: list[CoveragePoint]


@dataclass(frozen=True)
class WorstError:
    """A wrong prediction: row, true label and predicted label. Regression has no probability."""

    row: int
    id: str | None
    true_label: str
    label: str
    probability: float | None
    probability_of_true_label: float | None


@dataclass(frozen=True)
class Shares:
    """Mean expert or gate shares over all rows and over those of each class that has rows."""

    mean: list[float]
    per_class: dict[str, list[float]]


@dataclass(frozen=True)
class Subgroup:
    """``n`` rows of ``groups`` patients with the same value of a column; ``small`` marks unreliable metrics.

    ``classes`` is the number of their classes, over which balanced accuracy and AUROC are averaged.
    """

    value: str
    n: int
    groups: int
    classes: int
    small: bool
    figures: dict[str, Interval] = field(metadata=FLAT)


@dataclass(frozen=True)
class Condition:
    """Rows with only the ``shown`` inputs; ``changed`` is the share whose prediction differs."""

    shown: str
    n: int
    changed: float
    figures: dict[str, Interval] = field(metadata=FLAT)


@dataclass(frozen=True)
class ClassSets:
    """Conformal sets of a class's rows; ``undecided`` if validation rows were too few to exclude it."""

    n: int
    coverage: Interval
    mean_size: Interval
    undecided: bool


@dataclass(frozen=True)
class Sets:
    """Metrics of a conformal rule on rows that it was not fitted on.

    ``coverage`` is the share of sets with the true class, ``single`` that of sets with one class; ``mean_size`` is the
    mean number of classes in a set; ``sizes`` maps number of classes -> number of sets; ``per_class`` has the sets of a
    class's rows.
    """

    coverage: Interval
    mean_size: Interval
    single: Interval
    sizes: dict[str, int]
    per_class: dict[str, ClassSets]


@dataclass(frozen=True)
class ConformalResult:
    """Conformal rules for a ``wanted`` coverage, fitted on validation rows: name -> metrics of its sets."""

    wanted: float
    fitted_on: int
    rules: dict[str, Sets] = field(metadata=FLAT)


@dataclass(frozen=True)
class Threshold:
    """Probability threshold of a class, with its metrics on the evaluated rows.

    None without validation rows of the class. The intervals treat the threshold as fixed.
    """

    threshold: float | None
    validation_positives: int
    sensitivity: Interval | None = field(default=None, metadata=OPTIONAL)
    specificity: Interval | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Thresholds:
    """Decision thresholds for a ``wanted`` sensitivity, chosen on validation rows."""

    wanted: float
    fitted_on: int
    per_class: dict[str, Threshold]


@dataclass(frozen=True)
class Pooled:
    """Marks metrics pooled over a cross-validation's models, each on the rows of its own fold.

    The saved weights are those of ``seed`` and ``fold``, which has ``figures`` on its own ``n`` test rows.
    """

    folds: int
    seed: str
    fold: str
    n: int
    figures: dict[str, float | None]

    def words(self) -> str:
        """Note for readers before they compare."""
        known = {name.replace("_", " "): value for name, value in self.figures.items() if value is not None}
        own = ", ".join(f"{name} {value:.3f}" for name, value in known.items())
        return (
            f"These metrics are pooled over {self.folds} models, each trained without one fold and tested on it. The "
            f"saved weights are those of one of them, seed {self.seed}, tested on fold {self.fold}, where, on "
            f"{self.n:,} rows, they have {own}."
        )


@dataclass
class Evaluation:
    """Results of a model on labeled rows.

    Attributes:
        n: Number of rows.
        figures: Metric -> value, None if undefined.
        classes: Class names, in the order of the probabilities.
        absent_classes: Classes without rows.
        per_class: Class -> ``precision``, ``recall``, ``f1``, ``auroc`` and ``support``.
        confusion_matrix: (C, C) counts, rows are true classes.
        unreadable: Number of unreadable rows, which are excluded.
        bootstrap: Parameters of the intervals, over groups of the table.
        intervals: All metrics with their intervals.
        expert_use: Mean expert shares; None without experts.
        gates: Gate -> its mean values; None without gates.
        calibration: Effect of the model's temperature; None without one.
        selective: Metrics of selective prediction.
        worst_errors: The most confident errors.
        subgroups: Column -> its subgroups. None if not requested, like the following.
        conformal: Conformal sets, from validation rows.
        thresholds: Decision thresholds, from validation rows.
        decisions: Net benefit, calibration slopes and operating points.
        missing_modality: The same rows with modalities removed; empty if there is none to remove.
        pooled: Set if the metrics are of several models; None for one.
        task: Name of the task; None for ``multiclass``.
        split: Split of the rows, for a model saved with its evaluation.
        epoch: Best epoch of its training, from 1.
        val: Validation metrics of that epoch.
        folder: Folder of metrics, predictions and plots; None if not written or unknown.
        page: The HTML report.
    """

    n: int = 0
    figures: dict[str, float | None] = field(default_factory=dict, metadata=FLAT)
    classes: list[str] = field(default_factory=list)
    absent_classes: list[str] = field(default_factory=list)
    per_class: dict[str, dict[str, Any]] = field(default_factory=dict)
    confusion_matrix: list[list[int]] = field(default_factory=list)
    unreadable: int = 0
    bootstrap: Bootstrap | None = None
    intervals: Intervals = field(default_factory=Intervals)
    expert_use: Shares | None = field(default=None, metadata=OPTIONAL)
    gates: dict[str, Shares] | None = field(default=None, metadata=OPTIONAL)
    calibration: Calibration | None = None
    selective: Selective | None = None
    worst_errors: list[WorstError] = field(default_factory=list)
    subgroups: dict[str, list[Subgroup]] | None = field(default=None, metadata=OPTIONAL)
    conformal: ConformalResult | None = field(default=None, metadata=OPTIONAL)
    thresholds: Thresholds | None = field(default=None, metadata=OPTIONAL)
    decisions: DecisionResult | None = field(default=None, metadata=OPTIONAL)
    missing_modality: list[Condition] | None = field(default=None, metadata=OPTIONAL)
    pooled: Pooled | None = field(default=None, metadata=OPTIONAL)
    task: str | None = field(default=None, metadata=OPTIONAL)
    split: str | None = field(default=None, metadata=OPTIONAL)
    epoch: int | None = field(default=None, metadata=OPTIONAL)
    val: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    folder: Path | None = field(default=None, metadata=TRANSIENT)
    page: Path | None = field(default=None, metadata=TRANSIENT)

    def to_dict(self) -> dict[str, Any]:
        """The contents of ``metrics.json``."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Evaluation:
        """Rebuild from :meth:`to_dict`, or from part of it, such as the metrics of an epoch."""
        metrics = [name for name in values.get("intervals") or {} if name != "per_class"] or HEADLINE
        known = {f.name for f in fields(cls)}
        figures = {name: values[name] for name in metrics if name in values}
        return from_plain(cls, {name: values[name] for name in values if name in known} | figures)

    def summary(self) -> str:
        """All results as text."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        if drawn := self.bootstrap:
            how = f"{drawn.groups:,} groups, {drawn.replicates:,} resamples"
            yield f"metrics with {drawn.level:.0%} intervals ({how}):"
        yield from (f"  {name:18} {figure}" for name, figure in self.intervals.figures.items())
        if found := self.calibration:
            known = [key for key in ("ece", "nll") if key in found.before and key in found.after]
            changes = ", ".join(f"{key} {found.before[key]:.3f} -> {found.after[key]:.3f}" for key in known)
            told = f"{calibration_words(vars(found))}{': ' if changes else ''}{changes}"
            yield f"calibrated with {told}; disable with --calibrated false"
        for column, parts in (self.subgroups or {}).items():
            yield f"{self.main.replace('_', ' ')} by {column}:"
            for part in parts:
                classes = "" if self.task else f", {part.classes} classes"
                rows = f"{part.n:,} rows{classes}{', small' if part.small else ''}"
                yield f"  {part.value:18} {part.figures[self.main]}  ({rows})"
        yield from self._decision_lines()
        if self.missing_modality == []:
            yield "no modality to remove: the model has one, or no row has all"
        if self.missing_modality:
            yield "rows with all inputs, evaluated with some of them removed:"
        width = max([18, *(len(row.shown) for row in self.missing_modality or ())])
        for row in self.missing_modality or ():
            figure = f"{self.main.replace('_', ' ')} {row.figures[self.main]}"
            told = f"{figure}, {row.changed:.1%} of predictions changed"
            yield f"  {row.shown:{width}} {told}  ({row.n:,} rows)"
        used = {"experts": self.expert_use} if self.expert_use else {}
        used |= {f"gate {name}": shares for name, shares in (self.gates or {}).items()}
        for name, shares in used.items():
            yield f"  {name:18} {' '.join(f'{share:.2f}' for share in shares.mean)}"
        if self.folder:
            yield f"metrics.json, predictions.csv and plots are in {self.folder}"
        if self.page:
            yield f"report: {self.page}"

    @property
    def class_figures(self) -> list[str]:
        """Names of the metrics of each class, label or target."""
        first: dict[str, Any] = next(iter(self.per_class.values()), {})
        return [name for name in first if name not in ("support", "known")]

    @property
    def main(self) -> str:
        """The headline metric: balanced accuracy, or the first one of another task."""
        known = self.intervals.figures
        return "balanced_accuracy" if not self.task else next(iter(known), "")

    def _decision_lines(self) -> Iterator[str]:
        if self.conformal:
            rules = self.conformal.rules
            numbers = not any(sets.sizes for sets in rules.values())
            yield f"conformal {'intervals' if numbers else 'sets'} for {self.conformal.wanted:.0%} coverage:"
            for name, sets in rules.items():
                size = "mean width" if numbers else "mean set size"
                yield f"  {name:18} coverage {sets.coverage}, {size} {sets.mean_size.text(2)}"
        if self.thresholds:
            yield f"thresholds for a sensitivity of {self.thresholds.wanted:.0%} on the validation rows:"
            for name, found in self.thresholds.per_class.items():
                figures = f"sensitivity {found.sensitivity}, specificity {found.specificity}"
                known = found.threshold is not None
                yield f"  {name:18} " + (f"from {found.threshold:.4f}: {figures}" if known else "no validation rows")
        if self.decisions:
            yield from self.decisions.lines()

    def shown(self) -> dict[str, float]:
        """The defined metrics without those of :data:`NOT_SHOWN`."""
        return {name: value for name, value in self.figures.items() if value is not None and name not in NOT_SHOWN}

    def markdown(self) -> str:
        """Metrics overall and per class as tables; empty if there are none."""
        if not (shown := self.shown()):
            return ""
        told = f"On `{self.split}`" if self.split else "On validation rows"
        told += f", {self.n:,} rows" if self.n else ""
        if drawn := self.bootstrap:
            told += f"; in brackets {drawn.level:.0%} bootstrap intervals over {drawn.groups:,} groups"
        if self.pooled:
            told = f"{self.pooled.words()}\n\n{told}"
        known = {name: end for name, end in self.intervals.figures.items() if end.low is not None}
        ends = {name: f" [{end.low:.4f}, {end.high:.4f}]" for name, end in known.items()}
        rows = [(name.replace("_", " "), f"{value:.4f}{ends.get(name, '')}") for name, value in shown.items()]
        parts = [f"{told}:", table(("figure", "value"), rows)]
        if self.per_class:
            figures = CLASS_FIGURES if not self.task else self.class_figures
            classes = [
                (name, f"{own['support']:,}", *("-" if own[k] is None else f"{own[k]:.3f}" for k in figures))
                for name, own in self.per_class.items()
            ]
            heads = [name.replace("auroc", "AUROC").replace("_", " ") for name in figures]
            parts.append(table(("label" if self.task else "class", "rows", *heads), classes))
        if found := self.thresholds:
            how = f"chosen on {found.fitted_on:,} validation rows"
            where = f"the {self.pooled.n:,} test rows of its own fold" if self.pooled else "these rows"
            parts.append(f"Thresholds for a sensitivity of {found.wanted:.0%}, {how}, and their metrics on {where}:")
            limits = [
                (name, f"{each.threshold:.4f}", str(each.sensitivity), str(each.specificity))
                for name, each in found.per_class.items()
                if each.threshold is not None
            ]
            parts.append(table(("class", "from probability", "sensitivity", "specificity"), limits))
        if self.decisions and (told := self.decisions.markdown()):
            parts.append(told)
        return "\n\n".join(parts)
