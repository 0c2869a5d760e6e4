"""The task ``regression``: one or several numbers, each with a prediction interval."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mmfusion.evaluation.conformal import conformal_quantile
from mmfusion.evaluation.intervals import ratio_interval
from mmfusion.evaluation.metrics import Metrics, plain
from mmfusion.evaluation.weighted import Floats, ratio
from mmfusion.figures import Interval
from mmfusion.outputs import FusionOutput
from mmfusion.registry import register
from mmfusion.results import ClassSets, ConformalResult, Evaluation, Sets, WorstError
from mmfusion.task import Task
from mmfusion.text.template import cell_number

#: Separator of numbers in a cell; an unknown number.
SEPARATOR, UNKNOWN = "|", "?"
#: Target coverage of the prediction intervals.
COVERAGE = 0.9
#: Minimum number of validation rows for an interval.
FEWEST = 10
#: Bound of the log scale, in standard deviations of the training rows.
MOST = 6.0
#: Change in standard deviations above which a prediction counts as different.
MOVED = 0.1
#: Maximum number of errors listed.
WORST = 12


@register("task", "regression")
class Regression(Task):
    """Numbers in a label column or in ``dataset.label_columns`` (blank: unknown), predicted in their own unit.

    Internally they are standardized by mean and standard deviation of the training rows. The intervals are
    split-conformal (Lei et al. 2018) with a coverage of 90 %, fitted on the validation rows, scaled by the predicted
    standard deviation if the model has one.
    """

    name = "regression"
    forms: ClassVar[Mapping[str, str]] = {"gaussian": "gaussian", "point": "huber"}
    metric = "r2"
    noun = "targets"
    has_probabilities = False
    changed_by_calibration = ()
    blank = np.nan

    @cached_property
    def _mean(self) -> NDArray[np.float64]:
        return np.array(self.targets.get("mean", [0.0]), dtype=np.float64)

    @cached_property
    def _scale(self) -> NDArray[np.float64]:
        return np.array(self.targets.get("scale", [1.0]), dtype=np.float64)

    # Cells of a table

    def fixed(self, dataset: Any) -> list[str]:
        if dataset.label_map:
            raise ValueError("dataset.label_map maps to classes and does not apply to regression; remove it.")
        return list(dataset.label_columns) or [dataset.label_column]

    def joined_cell(self, cells: Mapping[str, str | None]) -> tuple[str | None, str]:
        for name, cell in cells.items():
            if cell is not None and cell_number(cell) is None:
                return None, f"the label column {name} is not a number"
        if all(cell is None for cell in cells.values()):
            return None, ""
        return SEPARATOR.join(UNKNOWN if cell is None else cell for cell in cells.values()), ""

    def parts(self, cell: str) -> list[str]:
        return []

    def fault(self, cell: str, known: Sequence[str] | None) -> str | None:
        numbers = [part for part in cell.split(SEPARATOR) if part != UNKNOWN]
        if not all(cell_number(part) is not None for part in numbers):
            return "not a number, as needed for the task regression"
        return None

    def faults(self, cells: Sequence[str | None], column: str, labels: Sequence[str]) -> Iterator[str]:
        known = {cell for cell in cells if cell is not None}
        if len(known) == 1:
            yield f"the label column {column!r} has only one value, {known.pop()}: there is nothing to predict"

    def strata(self, cells: Sequence[str]) -> list[str]:
        """Quintiles of the rows by their first number."""
        values = np.array([cell_number(cell.split(SEPARATOR)[0]) for cell in cells], dtype=np.float64)
        if np.isnan(values).all():
            return ["" for _ in cells]
        edges = np.unique(np.nanquantile(values, [0.2, 0.4, 0.6, 0.8]))
        return [str(place) for place in np.searchsorted(edges, values)]

    def fitted(self, cells: Sequence[str | None]) -> dict[str, Any] | None:
        """Mean and standard deviation of each target on the training rows."""
        rows = [cell.split(SEPARATOR) for cell in cells if cell is not None]
        values = np.array([[cell_number(part) for part in row] for row in rows], dtype=np.float64)
        scale = np.nanstd(values, axis=0)
        return {"mean": np.nanmean(values, axis=0).tolist(), "scale": np.where(scale > 0, scale, 1.0).tolist()}

    # Labels and targets

    def read(self, cell: str) -> list[float]:
        numbers = [cell_number(part) if part != UNKNOWN else float("nan") for part in cell.split(SEPARATOR)]
        if None in numbers or len(numbers) != max(1, len(self.labels)):
            raise ValueError(f"{cell!r} does not have a number for each of {', '.join(self.labels)}.")
        return [float(number) for number in numbers if number is not None]

    def encoded(self, cells: Sequence[str | None]) -> NDArray[np.float64]:
        unknown = [float("nan")] * len(self.labels)
        rows = [unknown if not cell else self.read(cell) for cell in cells]
        return np.array(rows, dtype=np.float64).reshape(-1, len(self.labels))

    def written(self, label: Any) -> str:
        return "" if np.isnan(label).all() else SEPARATOR.join(UNKNOWN if v != v else f"{v:.12g}" for v in label)

    def known(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = ~np.isnan(labels).all(axis=1)
        return found

    def target(self, label: Any) -> list[float]:
        values = np.atleast_1d(np.asarray(self.read(label) if isinstance(label, str) else label, dtype=np.float64))
        found: list[float] = ((values - self._mean) / self._scale).tolist()
        return found

    def truth(self, targets: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = targets.astype(np.float64) * self._scale + self._mean
        return found

    # The model

    def width(self, count: int) -> int:
        return 2 * count if self.form == "gaussian" else count

    def link(self, count: int) -> nn.Module | None:
        return BoundedScales() if self.form == "gaussian" else None

    def shaped(self, output: FusionOutput) -> FusionOutput:
        if self.form == "gaussian" and output.logits is not None:
            output.logits, output.log_scales = output.logits.chunk(2, dim=-1)
        return output

    def raw(self, output: FusionOutput) -> Tensor:
        assert output.logits is not None
        return output.logits if output.log_scales is None else torch.cat([output.logits, output.log_scales], dim=-1)

    # Answers: values, then their lower and their upper ends

    @property
    def size(self) -> int:
        return self.width(len(self.labels))

    @property
    def columns(self) -> list[str]:
        places = range(len(self.labels))
        return [self.answer_columns[place + end * len(self.labels)] for place in places for end in range(3)]

    @property
    def answer_columns(self) -> list[str]:
        names = [f"_{label}" for label in self.labels] if len(self.labels) > 1 else [""]
        return [f"{kind}{name}" for kind in ("value", "low", "high") for name in names]

    def _values(self, raw: Tensor) -> Tensor:
        return raw.chunk(2, dim=-1)[0] if self.form == "gaussian" else raw

    def _in_unit(self, values: Tensor) -> Tensor:
        # not from numpy, which an exporter would treat as constants
        return values * values.new_tensor(self._scale.tolist()) + values.new_tensor(self._mean.tolist())

    def activate(self, raw: Tensor) -> Tensor:
        return self._in_unit(self._values(raw))

    def pooled(self, passes: Sequence[Tensor]) -> Tensor:
        """Mean and scale of the mixture over passes."""
        each = torch.stack([one.float() for one in passes])
        if len(each) == 1:
            return each[0]
        values = self._values(each)
        mean = values.mean(dim=0)
        if self.form != "gaussian":
            return mean
        variance = each.chunk(2, dim=-1)[1].mul(2).exp().mean(dim=0) + values.var(dim=0, correction=0)
        return torch.cat([mean, variance.log() / 2], dim=-1)

    def answers(self, scores: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        scores = scores.float()
        values = self._values(scores)
        bounds = (calibration or {}).get("quantiles") or [float("nan")] * max(1, len(self.labels))
        half = values.new_tensor(bounds) * self._width_of(scores)
        return torch.cat([self._in_unit(each) for each in (values, values - half, values + half)], dim=-1)

    def _width_of(self, scores: Tensor) -> Tensor:
        """Unit of an interval: the predicted scale, else one standard deviation."""
        return scores.chunk(2, dim=-1)[1].exp() if self.form == "gaussian" else torch.ones_like(scores)

    def uncalibrated(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.answers(torch.from_numpy(scores)).numpy()

    def joined(self, answers: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], dict[str, Any] | None]:
        value, low, high = np.split(np.stack(answers).mean(axis=0, dtype=np.float64), 3, axis=1)
        scores = (value - self._mean) / self._scale
        if self.form == "gaussian":
            scores = np.concatenate([scores, np.log((high - low) / 2 / self._scale)], axis=1)
            return scores.astype(np.float32), {"quantiles": [1.0] * len(self.labels)}
        half = np.nanmean((high - low) / 2 / self._scale, axis=0)
        return scores.astype(np.float32), {"quantiles": half.tolist()}

    def cells(self, answer: NDArray[np.float32]) -> list[str]:
        by_name = dict(zip(self.answer_columns, answer, strict=True))
        return ["" if np.isnan(by_name[name]) else f"{by_name[name]:.7g}" for name in self.columns]

    def told(self, answer: NDArray[np.float32]) -> dict[str, Any]:
        rows = answer.reshape(3, -1).T.tolist()
        numbers = [[None if number != number else number for number in row] for row in rows]
        ends = [dict(zip(("value", "low", "high"), row, strict=True)) for row in numbers]
        alone = ends[0] if len(ends) == 1 else {}
        return {**alone, "values": dict(zip(self.labels, ends, strict=True))}

    def foremost(self, answer: NDArray[np.float32]) -> int:
        return 0

    def named(self, answers: NDArray[Any]) -> NDArray[Any]:
        return answers[:, : len(self.labels)]

    def differ(self, answers: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
        """Whether a value changed by more than a tenth of a standard deviation of the training rows."""
        found: NDArray[np.bool_] = (np.abs(self.named(answers) - self.named(others)) > MOVED * self._scale).any(axis=1)
        return found

    def evidence(self, raw: Tensor) -> Tensor:
        return self._values(raw)

    def change(self, raw: Tensor, other: Tensor) -> Tensor:
        """Mean absolute change in standard deviations of the training rows."""
        return (self._values(raw) - self._values(other)).abs().mean(dim=-1)

    # Evaluation

    @property
    def metrics(self) -> Mapping[str, Any]:
        return Metrics(self.name, ("mae", "rmse", "r2", "concordance"))

    def rows(self, labels: Any, answers: Any) -> "NumberRows":
        labels = np.asarray(labels)
        return NumberRows(labels, np.asarray(answers)[:, : labels.shape[1]])

    def figures(self, labels: NDArray[Any], answers: NDArray[Any], frame: Any = None) -> dict[str, Any]:
        rows, metrics = plain(labels, answers, self), self.metrics
        by_target = {name: metric.by_class(rows)[0] for name, metric in metrics.items()}
        known = rows.rows.known.sum(axis=0).astype(int)
        return {
            "n": len(labels),
            **{name: _value(metric(rows)[0]) for name, metric in metrics.items()},
            "classes": list(self.labels),
            "per_class": {
                target: {name: _value(values[c]) for name, values in by_target.items()} | {"support": int(known[c])}
                for c, target in enumerate(self.labels)
            },
            **({} if frame is None else {"worst_errors": list(self._worst(labels, self.named(answers), frame["id"]))}),
        }

    def _worst(self, y: NDArray[Any], said: NDArray[Any], ids: Any) -> Iterator[WorstError]:
        """The largest errors, in standard deviations of the training rows."""
        off = np.nan_to_num(np.abs(said - y) / self._scale, nan=-1.0)
        for place in np.argsort(-off, axis=None, kind="stable")[:WORST]:
            i, c = np.unravel_index(place, off.shape)
            if off[i, c] > 0:
                true, told = (f"{self.labels[c]} {value:.4g}" for value in (y[i, c], said[i, c]))
                yield WorstError(int(ids.index[i]), ids.iloc[i], true, told, None, None)

    def calibrated(self, labels: NDArray[Any], scores: NDArray[np.float32], **how: Any) -> dict[str, Any] | None:
        """Conformal quantile of the scaled error per target; None with too few rows."""
        sizes = self._sizes(labels, scores)
        found = [conformal_quantile(each[~np.isnan(each)], COVERAGE) for each in sizes.T]
        if (~np.isnan(sizes)).sum(axis=0).min() < FEWEST or not np.isfinite(found).all():
            return None
        return {"quantiles": found, "coverage": COVERAGE, "n": len(labels)}

    def _sizes(self, labels: NDArray[Any], scores: NDArray[np.float32]) -> NDArray[np.float64]:
        """(N, targets) error in units of the interval; NaN if unknown."""
        told = torch.from_numpy(np.asarray(scores))
        errors = np.abs((labels - self._mean) / self._scale - self._values(told).double().numpy())
        found: NDArray[np.float64] = errors / self._width_of(told).double().numpy()
        return found

    def losses(self, labels: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        """Squared error in standard deviations, averaged over known targets."""
        squares = ((self.named(answers) - labels) / self._scale) ** 2
        known = ~np.isnan(squares)
        found: NDArray[np.float64] = np.nansum(squares, axis=1) / np.maximum(known.sum(axis=1), 1)
        return found

    def decide(self, found: Evaluation, fitted: Any, measured: Any, *, coverage: float, sensitivity: float) -> None:
        """Intervals at the target coverage: observed coverage and width."""
        sizes, own = (self._sizes(rows.labels, rows.scores) for rows in (fitted, measured))
        bounds = np.array([conformal_quantile(each[~np.isnan(each)], coverage) for each in sizes.T])
        scale = self._width_of(torch.from_numpy(measured.scores)).double().numpy() * self._scale
        known, per_target = ~np.isnan(own), {}
        held, widths = (own <= bounds).astype(float), 2 * bounds * scale
        for c, name in enumerate(self.labels):
            columns = np.column_stack([held[:, c], widths[:, c]])
            hold, width = ratio_interval(columns, known[:, c].astype(float), measured.groups)
            per_target[name] = ClassSets(int(known[:, c].sum()), hold, width, bool(np.isinf(bounds[c])))
        share = np.where(known, held, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        columns = np.column_stack([share, widths.mean(axis=1)])
        hold, width = ratio_interval(columns, known.any(axis=1).astype(float), measured.groups)
        rule = Sets(hold, width, Interval(None, None, None), {}, per_target)
        found.conformal = ConformalResult(coverage, len(fitted.labels), {"interval": rule})

    def plot(self, found: Evaluation, predicted: Any, folder: Path) -> None:
        from mmfusion.evaluation.plots import plot_numbers  # imports matplotlib and scikit-learn

        plot_numbers(predicted.labels, predicted.probabilities, self.labels, folder / "values.png")


class BoundedScales(nn.Module):
    """Values unchanged and log scales bounded: (B, 2 targets) -> (B, 2 targets)."""

    def forward(self, outputs: Tensor) -> Tensor:
        """Bound the second half smoothly."""
        values, log_scales = outputs.chunk(2, dim=-1)
        return torch.cat([values, MOST * torch.tanh(log_scales / MOST)], dim=-1)


class NumberRows:
    """True and predicted numbers (N, targets) for metrics; NaN is unknown.

    Raises:
        ValueError: Shapes differ, there are no rows, or predictions are not finite.
    """

    def __init__(self, labels: ArrayLike, values: ArrayLike) -> None:
        y, said = np.asarray(labels, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if y.ndim != 2 or y.shape != said.shape or not len(y):
            raise ValueError(f"Metrics need true and predicted numbers (N, targets); got {y.shape} and {said.shape}.")
        if not np.isfinite(said).all():
            raise ValueError("Predicted numbers must be finite.")
        self.known = (~np.isnan(y)).astype(np.float64)
        # centered, since sums of squares of large numbers would cancel
        centre = np.where(self.known > 0, y, 0).sum(axis=0) / np.maximum(self.known.sum(axis=0), 1)
        self.labels = np.where(self.known > 0, y - centre, 0)
        self.values = (said - centre) * self.known

    def __len__(self) -> int:
        return len(self.labels)

    def weighted(self, weights: Floats) -> "NumberWeighted":
        """The rows under nonnegative weights (R, N)."""
        return NumberWeighted(self, weights)


class NumberWeighted:
    """R weightings of :class:`NumberRows`; every metric is (R, targets)."""

    def __init__(self, rows: NumberRows, weights: Floats) -> None:
        self.rows, self.weights = rows, np.ascontiguousarray(weights)
        self._known = self.weights @ rows.known

    def _mean(self, values: Floats) -> Floats:
        return ratio(self.weights @ values, self._known)

    @cached_property
    def mae(self) -> Floats:
        """Mean absolute error."""
        return self._mean(np.abs(self.rows.values - self.rows.labels))

    @cached_property
    def _mse(self) -> Floats:
        return self._mean((self.rows.values - self.rows.labels) ** 2)

    @cached_property
    def rmse(self) -> Floats:
        """Root mean squared error."""
        return np.sqrt(self._mse)

    @cached_property
    def r2(self) -> Floats:
        """1 - squared error / variance; undefined if all true numbers are equal."""
        return 1 - ratio(self._mse, self._variance(self.rows.labels))

    @cached_property
    def concordance(self) -> Floats:
        """2 cov / (var + var + (difference of the means)^2)."""
        y, said = self.rows.labels, self.rows.values
        means = self._mean(y), self._mean(said)
        covariance = self._mean(y * said) - means[0] * means[1]
        return ratio(2 * covariance, self._variance(y) + self._variance(said) + (means[0] - means[1]) ** 2)

    def _variance(self, values: Floats) -> Floats:
        return np.maximum(self._mean(values**2) - self._mean(values) ** 2, 0)


def _value(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)
