"""When a model raises an alarm: rules, operating points as they are saved with a model, and what they do on cases."""

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

#: how the probabilities of several rows of one group become one answer.
POOLINGS = ("mean", "max")

_SHARE = re.compile(r"(sensitivity|specificity)\s*>=\s*([\d.]+)")
_ALARMS = re.compile(r"alarms\s*<=\s*([\d.]+)\s+per\s+1,?000")


@dataclass(frozen=True)
class Rule:
    """What an operating point keeps: ``figure`` (sensitivity, specificity or alarms) and its ``limit``, a share."""

    figure: str
    limit: float

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Read ``sensitivity>=0.9``, ``specificity>=0.95`` or ``alarms<=100 per 1000``.

        Raises:
            ValueError: The text is none of these, or the share is not above 0 and at most 1.
        """
        found = _SHARE.fullmatch(text.strip()) or _ALARMS.fullmatch(text.strip())
        known = "a rule is 'sensitivity>=0.9', 'specificity>=0.95' or 'alarms<=100 per 1000'"
        if found is None:
            raise ValueError(f"Unknown operating point {text!r}; {known}.")
        rule = cls(found[1], float(found[2])) if found.re is _SHARE else cls("alarms", float(found[1]) / 1000)
        if not 0 < rule.limit <= 1:
            raise ValueError(f"The operating point {text!r} is out of range; {known}.")
        return rule


def check_rules(rules: Sequence[str], prevalence: float | None, alarm: Sequence[str]) -> None:
    """Refuse a rule that cannot be read, a prevalence not between 0 and 1, and one without classes; ValueError."""
    for rule in rules:
        Rule.parse(rule)
    if prevalence is not None and not 0 < prevalence < 1:
        raise ValueError(f"prevalence is a share between 0 and 1, e.g. 0.02; got {prevalence}.")
    if prevalence is not None and not alarm:
        raise ValueError("prevalence is that of the classes that --alarm names; name them.")


def check_by(by: str | None, pooling: str | None) -> None:
    """Refuse another ``by`` than ``group``, and a ``pooling`` that there is not, or without it; ValueError."""
    if by not in (None, "group"):
        raise ValueError(f"by is 'group' or null; got {by!r}.")
    if pooling not in (None, *POOLINGS) or (pooling is not None and by is None):
        raise ValueError(f"pooling is one of {', '.join(POOLINGS)} or null, and goes with --by group; got {pooling!r}.")


def check_classes(alarm: Sequence[str], known: Sequence[str]) -> None:
    """Refuse classes that a model does not know, all of its classes, and a class twice; ValueError."""
    if unknown := [name for name in alarm if name not in known]:
        raise ValueError(f"alarm: the model knows no class {unknown[0]!r}; {did_you_mean(unknown[0], list(known))}")
    if len(set(alarm)) < len(alarm) or len(alarm) == len(known):
        raise ValueError(f"alarm names some of the {len(known)} classes, each once; got {', '.join(alarm)}.")


@dataclass(frozen=True)
class OperatingPoint:
    """From which probability on a model raises an alarm.

    Attributes:
        alarm: Classes to be alarmed about; the sum of their probabilities counts.
        rule: What the threshold keeps on the validation rows.
        threshold: The sum from which on there is an alarm.
        fitted_on: Number of validation rows that it was chosen on.
        prevalence: Share of the alarming classes that ``alarms<=`` was kept at; None for that of the validation rows.
    """

    alarm: list[str]
    rule: str
    threshold: float
    fitted_on: int
    prevalence: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Decisions:
    """What was decided on validation rows and is saved with a model.

    Attributes:
        points: Operating points.
        by_group: How several rows of one group give one answer, ``mean`` or ``max``.
    """

    points: list[OperatingPoint] = field(default_factory=list)
    by_group: str = "mean"

    @property
    def columns(self) -> list[str]:
        """Name of the column of each point: ``alarm`` of a single one."""
        if len(self.points) == 1:
            return ["alarm"]
        classes = ["+".join(point.alarm) for point in self.points]
        plain = len(set(classes)) == len(classes)
        names = zip(classes, self.points, strict=True)
        return [f"alarm_{name}" if plain else f"alarm_{name}_{point.rule}" for name, point in names]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None, classes: Sequence[str]) -> Decisions:
        """The entry ``decisions`` of a ``config.json`` for a model of these classes; the default where there is none.

        Raises:
            ValueError: It is not what mmfusion writes.
        """
        if values is None:
            return cls()
        try:
            found: Decisions = from_plain(cls, values)
            for point in found.points:
                Rule.parse(point.rule)
                check_classes(point.alarm, classes)
                if not (isinstance(point.threshold, int | float) and math.isfinite(point.threshold)):
                    raise ValueError(f"threshold {point.threshold!r} is no number")
            if found.by_group not in POOLINGS:
                raise ValueError(f"by_group is one of {', '.join(POOLINGS)}; got {found.by_group!r}")
        except (TypeError, KeyError, AttributeError, ValueError, OverflowError) as error:
            raise ValueError(f"entry 'decisions': {error}; remove it, or save the model again.") from None
        return found


@dataclass(frozen=True)
class Benefit:
    """Net benefit of acting from a probability (``threshold``) on: of the model, of acting on all, their difference.

    Acting on none has a net benefit of 0.
    """

    threshold: float
    model: Interval
    treat_all: Interval
    difference: Interval


@dataclass(frozen=True)
class CalibrationLine:
    """Slope and intercept of calibration.

    ``slope`` is that of a logistic regression of the outcome on the log-odds of the probability: below 1 the
    probabilities are too extreme. ``intercept`` is that with the slope held at 1: below 0 they are too high on average.
    """

    slope: Interval
    intercept: Interval

    def __str__(self) -> str:
        return f"slope {self.slope}, intercept {self.intercept}"


@dataclass(frozen=True)
class PointFigures:
    """What an operating point does on rows that it was not chosen on.

    ``ppv`` and ``npv`` are the predictive values, ``alarms`` are per 1,000 cases: at the prevalence of the result.
    """

    point: OperatingPoint
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    alarms: Interval


@dataclass(frozen=True)
class DecisionResult:
    """What acting on a model is worth on the measured rows.

    Attributes:
        alarm: The classes that are acted on; empty where each class is one for itself.
        observed: Their share of the rows; None where each class is one for itself.
        prevalence: Share that predictive values, alarms and net benefit are told at; None for the observed one.
        benefit: Net benefit over thresholds; empty where each class is one for itself.
        line: Slope and intercept of their summed probability; None likewise.
        per_class: Class -> slope and intercept of its probability.
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
        """At which prevalence figures are told, in words."""
        return f"at a prevalence of {self.prevalence:.2%}" if self.prevalence else "at the prevalence of these rows"

    def lines(self) -> Iterator[str]:
        """All of it for a screen."""
        if self.alarm:
            yield f"alarm for {', '.join(self.alarm)} ({self.observed:.1%} of the rows): calibration {self.line}"
            yield f"  net benefit per 1,000 cases {self.at}, beside acting on all (acting on none has 0):"
        for row in self.benefit:
            own, others, change = (_per_1000(each) for each in (row.model, row.treat_all, row.difference))
            yield f"    acting from {row.threshold:<6g} {own}, on all {others}, difference {change}"
        yield from (f"  {name:18} calibration {line}" for name, line in self.per_class.items() if not self.alarm)
        for each in self.points:
            point = each.point
            chosen = f"{point.rule} on {point.fitted_on:,} rows: from {point.threshold:.4f} on"
            yield f"  alarm {'+'.join(point.alarm)}, {chosen}"
            yield f"    sensitivity {each.sensitivity}, specificity {each.specificity}"
            yield f"    {self.at}: PPV {each.ppv}, NPV {each.npv}, alarms per 1,000 {each.alarms.text(0)}"

    def markdown(self) -> str:
        """Operating points and net benefit as tables."""
        parts = []
        if self.points:
            parts.append(f"Operating points, and what they do on these rows; predictive values and alarms {self.at}:")
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
                f"Net benefit per 1,000 cases of acting on {', '.join(self.alarm)} {self.at}; acting on none has 0. "
                f"Calibration {self.line}:"
            )
            told = [
                (f"{row.threshold:g}", *map(_per_1000, (row.model, row.treat_all, row.difference)))
                for row in self.benefit
            ]
            parts.append(table(("acting from", "the model", "acting on all", "difference"), told))
        return "\n\n".join(parts)


def _per_1000(figure: Interval) -> str:
    ends = (figure.value, figure.low, figure.high)
    return Interval(*(None if end is None else 1000 * end for end in ends)).text(0)
