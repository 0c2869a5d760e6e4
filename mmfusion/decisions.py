"""Alarm rules, the operating points saved with a model, and decision metrics."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmfusion.figures import Interval
from mmfusion.markdown import table
from mmfusion.names import did_you_mean
from mmfusion.records import OPTIONAL, from_plain

#: Methods of pooling the probabilities of a group's rows.
POOLINGS = ("mean", "max")

_SHARE = re.compile(r"(sensitivity|specificity)\s*>=\s*([\d.]+)")
_ALARMS = re.compile(r"alarms\s*<=\s*([\d.]+)\s+per\s+1,?000")


@dataclass(frozen=True)
class Rule:
    """Target of an operating point: ``figure`` (sensitivity, specificity or alarms) and its ``limit``, a share."""

    figure: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Parse ``sensitivity>=0.9``, ``specificity>=0.95`` or ``alarms<=100 per 1000``.

        Raises:
            ValueError: The text has another form, or the share is not above 0 and at most 1.
        """
        found = _SHARE.fullmatch(text.strip()) or _ALARMS.fullmatch(text.strip())
        known = "rules are 'sensitivity>=0.9', 'specificity>=0.95' and 'alarms<=100 per 1000'"
        if found is None:
            raise ValueError(f"Unknown operating point {text!r}; {known}.")
        rule = cls(found[1], float(found[2])) if found.re is _SHARE else cls("alarms", float(found[1]) / 1000)
        if not 0 < rule.limit <= 1:
            raise ValueError(f"The operating point {text!r} is out of range; {known}.")
        return rule


def check_rules(rules: Sequence[str], prevalence: float | None, alarm: Sequence[str]) -> None:
    """Check rules, that a prevalence is between 0 and 1, and that it has alarm classes; raises ValueError."""
    for rule in rules:
        Rule.parse(rule)
    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(f"prevalence must be a share between 0 and 1, e.g. 0.02; got {prevalence}.")
    if prevalence is not None and not alarm:
        raise ValueError("prevalence needs alarm classes; set them with --alarm.")


def check_by(by: str | None, pooling: str | None) -> None:
    """Check that ``by`` is ``group`` or None, and that ``pooling`` is known and used with it; raises ValueError."""
    if by not in (None, "group"):
        raise ValueError(f"by must be 'group' or null; got {by!r}.")
    if pooling not in (None, *POOLINGS) or (pooling is not None and by is None):
        raise ValueError(f"pooling must be one of {', '.join(POOLINGS)} or null, with --by group; got {pooling!r}.")


def check_classes(alarm: Sequence[str], known: Sequence[str]) -> None:
    """Check that alarm classes are known, unique and not all classes; raises ValueError."""
    if unknown := [name for name in alarm if name not in known]:
        raise ValueError(f"alarm: the model has no class {unknown[0]!r}; {did_you_mean(unknown[0], list(known))}")
    if len(set(alarm)) < len(alarm) or len(alarm) == len(known):
        raise ValueError(f"alarm must list some of the {len(known)} classes, each once; got {', '.join(alarm)}.")


@dataclass(frozen=True)
class OperatingPoint:
    """Probability threshold above which a model raises an alarm.

    Attributes:
        alarm: Alarm classes; their probabilities are summed.
        rule: Rule that the threshold meets on the validation rows.
        threshold: Minimum sum for an alarm.
        fitted_on: Number of validation rows used.
        prevalence: Prevalence of the alarm classes assumed for ``alarms<=``; None for that of the validation rows.
    """

    alarm: list[str]
    rule: str
    threshold: float
    fitted_on: int
    prevalence: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Decisions:
    """Decision settings chosen on validation rows and saved with a model.

    Attributes:
        points: Operating points.
        by_group: Pooling of the rows of a group, ``mean`` or ``max``.
    """

    points: list[OperatingPoint] = field(default_factory=list)
    by_group: str = "mean"

    @property
    def columns(self) -> list[str]:
        """Column name of each point; ``alarm`` if there is only one."""
        if len(self.points) == 1:
            return ["alarm"]
        classes = ["+".join(point.alarm) for point in self.points]
        plain = len(set(classes)) == len(classes)
        names = zip(classes, self.points, strict=True)
        return [f"alarm_{name}" if plain else f"alarm_{name}_{point.rule}" for name, point in names]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None, classes: Sequence[str]) -> Decisions:
        """Read the entry ``decisions`` of a ``config.json`` for a model with these classes; default if missing.

        Raises:
            ValueError: It was not written by mmfusion.
        """
        if values is None:
            return cls()
        try:
            found: Decisions = from_plain(cls, values)
            for point in found.points:
                Rule.parse(point.rule)
                check_classes(point.alarm, classes)
                if not (isinstance(point.threshold, int | float) and math.isfinite(point.threshold)):
                    raise ValueError(f"threshold {point.threshold!r} is not a number")
            if found.by_group not in POOLINGS:
                raise ValueError(f"by_group must be one of {', '.join(POOLINGS)}; got {found.by_group!r}")
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"entry 'decisions': {error}; remove it, or save the model again.") from None
        return found


@dataclass(frozen=True)
class Benefit:
    """Net benefit at a ``threshold``: of the model, of treating all, and their difference.

    Treating none has a net benefit of 0.
    """

    threshold: float
    model: Interval
    treat_all: Interval
    difference: Interval


@dataclass(frozen=True)
class CalibrationLine:
    """Calibration slope and intercept.

    ``slope`` is that of a logistic regression of the outcome on the log-odds of the probability; below 1 the
    probabilities are too extreme. ``intercept`` is for a fixed slope of 1; below 0 they are too high on average.
    """

    slope: Interval
    intercept: Interval

    def __str__(self) -> str:
        return f"slope {self.slope}, intercept {self.intercept}"


@dataclass(frozen=True)
class PointFigures:
    """Metrics of an operating point on rows that it was not chosen on.

    ``ppv`` and ``npv`` are predictive values and ``alarms`` are per 1,000 cases, at the prevalence of the result.
    """

    point: OperatingPoint
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    alarms: Interval


@dataclass(frozen=True)
class DecisionResult:
    """Decision metrics on the evaluated rows.

    Attributes:
        alarm: Alarm classes; empty if each class is separate.
        observed: Their share of the rows; None if each class is separate.
        prevalence: Prevalence for predictive values, alarms and net benefit; None for the observed one.
        benefit: Net benefit per threshold; empty if each class is separate.
        line: Calibration line of their summed probability; None if each class is separate.
        per_class: Class -> its calibration line.
        points: Operating points chosen on validation rows, or saved with the model.
    """

    alarm: list[str]
    observed: float | None
    prevalence: float | None
    benefit: list[Benefit]
    line: CalibrationLine | None
    per_class: dict[str, CalibrationLine]
    points: list[PointFigures]

    @property
    def at(self) -> str:
        """The prevalence in words."""
        return f"at a prevalence of {self.prevalence:.2%}" if self.prevalence else "at the prevalence of these rows"

    def lines(self) -> Iterator[str]:
        """All results as text lines."""
        if self.alarm:
            yield f"alarm for {', '.join(self.alarm)} ({self.observed:.1%} of the rows): calibration {self.line}"
            yield f"  net benefit per 1,000 cases {self.at}, compared with treating all (treating none has 0):"
        for row in self.benefit:
            own, others, change = (_per_1000(each) for each in (row.model, row.treat_all, row.difference))
            yield f"    threshold {row.threshold:<6g} {own}, treat all {others}, difference {change}"
        if self.per_class and not self.alarm:
            yield "calibration of each class (ideal: slope 1, intercept 0):"
            yield from (f"  {name:18} {line}" for name, line in self.per_class.items())
        for each in self.points:
            point = each.point
            chosen = f"{point.rule} on {point.fitted_on:,} rows: threshold {point.threshold:.4f}"
            yield f"  alarm {'+'.join(point.alarm)}, {chosen}"
            yield f"    sensitivity {each.sensitivity}, specificity {each.specificity}"
            yield f"    {self.at}: PPV {each.ppv}, NPV {each.npv}, alarms per 1,000 {each.alarms.text(0)}"

    def markdown(self) -> str:
        """Operating points and net benefit as tables."""
        parts = []
        if self.points:
            parts.append(f"Operating points with their metrics on these rows; predictive values and alarms {self.at}:")
            head = (
                "alarm for",
                "rule",
                "from probability",
                "sensitivity",
                "specificity",
                "PPV",
                "NPV",
                "alarms per 1,000",
            )
            rows = [
                (
                    *("+".join(each.point.alarm), f"`{each.point.rule}`", f"{each.point.threshold:.4f}"),
                    *map(str, (each.sensitivity, each.specificity, each.ppv, each.npv)),
                    each.alarms.text(0),
                )
                for each in self.points
            ]
            parts.append(table(head, rows))
        if self.benefit:
            parts.append(
                f"Net benefit per 1,000 cases for {', '.join(self.alarm)} {self.at}; treating none has 0. "
                f"Calibration {self.line}:"
            )
            told = [
                (f"{row.threshold:g}", *map(_per_1000, (row.model, row.treat_all, row.difference)))
                for row in self.benefit
            ]
            parts.append(table(("threshold", "model", "treat all", "difference"), told))
        return "\n\n".join(parts)


def _per_1000(figure: Interval) -> str:
    ends = (figure.value, figure.low, figure.high)
    return Interval(*(None if end is None else 1000 * end for end in ends)).text(0)
