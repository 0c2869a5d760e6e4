"""The task ``multilabel``: several labels, each positive, negative or unknown."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfusion.data.labels import in_order, separator_of
from mmfusion.evaluation.calibration import FEWEST
from mmfusion.evaluation.conformal import conformal_quantile
from mmfusion.evaluation.intervals import ratio_interval
from mmfusion.evaluation.metrics import Metrics, plain
from mmfusion.evaluation.temperature import fit_label_temperature
from mmfusion.evaluation.thresholds import sensitivity_threshold
from mmfusion.registry import register
from mmfusion.results import ClassSets, ConformalResult, Evaluation, Sets, Threshold, Thresholds, WorstError
from mmfusion.task import Task
from mmfusion.tasks.label_rows import LabelRows
from mmfusion.text.template import cell_number

#: Separator of labels in a cell; prefix of an unknown label; cell without labels.
SEPARATOR, UNKNOWN, NONE = "|", "?", "-"
#: Probability from which a label is predicted positive.
THERE = 0.5
#: Maximum number of errors listed.
WORST = 12


@register("task", "multilabel")
class Multilabel(Task):
    """Any number of labels per row, each with its own sigmoid; unknown labels are ignored in losses and metrics.

    The labels are ``dataset.label_columns`` (1, 0, or blank for unknown), or cells of a label column that list them:
    ``a|b`` means a and b, ``a|?b`` means a with b unknown, ``-`` means none.
    """

    name = "multilabel"
    forms: ClassVar[Mapping[str, str]] = {"sigmoid": "bce"}
    metric = "macro_auroc"
    changed_by_calibration = ("ece", "nll", "brier")
    blank = np.nan

    # Cells of a table

    def fixed(self, dataset: Any) -> list[str]:
        if dataset.label_map:
            raise ValueError("dataset.label_map maps to one class per cell, not for multilabel; remove it.")
        return list(dataset.label_columns)

    def joined_cell(self, cells: Mapping[str, str | None]) -> tuple[str | None, str]:
        for name, cell in cells.items():
            if SEPARATOR in name or name.startswith(UNKNOWN):
                raise ValueError(f"The label column {name!r} has {SEPARATOR} in its name; rename it (dataset.columns).")
            if cell is not None and cell_number(cell) not in (0, 1):
                return None, f"the label column {name} is not 0, 1 or blank"
        if all(cell is None for cell in cells.values()):
            return None, ""
        present = [name for name, cell in cells.items() if cell_number(cell) == 1]
        unknown = [UNKNOWN + name for name, cell in cells.items() if cell is None]
        return SEPARATOR.join(present + unknown) or NONE, ""

    def normal(self, cells: Sequence[str | None]) -> list[str | None]:
        """Replace other separators by ``|`` if the cells use one."""
        found = separator_of(sorted({cell for cell in cells if cell is not None}))
        separator = SEPARATOR if found is None else found[0]
        parts = [None if cell is None else cell.split(separator) for cell in cells]
        return [None if each is None else SEPARATOR.join(part.strip() for part in each) for each in parts]

    def parts(self, cell: str) -> list[str]:
        names = [part.strip().removeprefix(UNKNOWN) for part in cell.split(SEPARATOR)]
        return [] if names == [NONE] else names

    def strata(self, cells: Sequence[str]) -> list[str]:
        """The rarest label of each row."""
        counts: dict[str, int] = {}
        present = [[part for part in cell.split(SEPARATOR) if not part.startswith(UNKNOWN)] for cell in cells]
        for names in present:
            for name in names:
                counts[name] = counts.get(name, 0) + 1
        return [min(names, key=lambda name: (counts[name], name), default=NONE) for names in present]

    # Labels and targets

    def read(self, cell: str) -> list[float]:
        found = [0.0] * len(self.labels)
        for part in cell.split(SEPARATOR) if cell != NONE else ():
            name = part.strip()
            found[self.position(name.removeprefix(UNKNOWN))] = float("nan") if name.startswith(UNKNOWN) else 1.0
        return found

    def encoded(self, cells: Sequence[str | None]) -> NDArray[np.float32]:
        unknown = [float("nan")] * len(self.labels)
        rows = [unknown if cell is None else self.read(cell) for cell in cells]
        return np.array(rows, dtype=np.float32).reshape(-1, len(self.labels))

    def written(self, label: Any) -> str:
        cells = {
            name: None if np.isnan(value) else f"{value:g}" for name, value in zip(self.labels, label, strict=True)
        }
        return self.joined_cell(cells)[0] or ""

    def known(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = ~np.isnan(labels).all(axis=1)
        return found

    def target(self, label: Any) -> list[float]:
        if isinstance(label, str):
            return self.read(label)
        values = [float("nan") if value is None else float(value) for value in label]
        if self.labels and len(values) != len(self.labels):
            raise ValueError(f"A row needs {len(self.labels)} labels ({', '.join(self.labels)}), got {len(values)}.")
        return values

    def positives(self, labels: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        return {name: labels[:, place] == 1 for place, name in enumerate(self.labels)}

    def negatives(self, labels: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        return {name: labels[:, place] == 0 for place, name in enumerate(self.labels)}

    # Answers

    def activate(self, raw: Tensor) -> Tensor:
        return raw.sigmoid()

    def pooled(self, passes: Sequence[Tensor]) -> Tensor:
        """Log-odds of the mean probability."""
        logits = torch.stack([each.float() for each in passes])
        return logits[0] if len(logits) == 1 else logits.sigmoid().mean(dim=0).logit(eps=1e-7)

    def answers(self, scores: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        scores = scores.float()
        return (scores / scores.new_tensor(calibration["temperature"]) if calibration else scores).sigmoid()

    def uncalibrated(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return self.answers(torch.from_numpy(scores)).numpy()

    def joined(self, answers: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], dict[str, Any] | None]:
        mean = torch.from_numpy(np.stack(answers).mean(axis=0, dtype=np.float64))
        return mean.logit(eps=1e-12).float().numpy(), None

    def cells(self, answer: NDArray[np.float32]) -> list[str]:
        return [self._there(answer), f"{answer.max():.6g}", *(f"{p:.6g}" for p in answer)]

    def told(self, answer: NDArray[np.float32]) -> dict[str, Any]:
        by_label = dict(zip(self.labels, map(float, answer), strict=True))
        return {"label": self._there(answer), "probability": max(by_label.values()), "probabilities": by_label}

    def _there(self, answer: NDArray[np.float32]) -> str:
        return SEPARATOR.join(name for name, p in zip(self.labels, answer, strict=True) if p >= THERE)

    def named(self, answers: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[np.bool_] = answers >= THERE
        return found

    # Evaluation

    @property
    def metrics(self) -> Mapping[str, Any]:
        return Metrics(self.name, ("macro_auroc", "macro_average_precision", "macro_f1", "ece", "nll", "brier"))

    def rows(self, labels: Any, answers: Any) -> LabelRows:
        return LabelRows(labels, answers)

    def figures(self, labels: NDArray[Any], answers: NDArray[Any], frame: Any = None) -> dict[str, Any]:
        rows = plain(labels, answers, self)
        columns = {"precision": rows.precision, "recall": rows.recall, "f1": rows.f1}
        columns |= {m.class_name: m.by_class(rows) for m in self.metrics.values() if m.class_name}
        support = rows.support[0].astype(int)
        return {
            "n": len(labels),
            **{name: _value(metric(rows)[0]) for name, metric in self.metrics.items()},
            "classes": list(self.labels),
            "absent_classes": [name for name, here in zip(self.labels, support, strict=True) if not here],
            "per_class": {
                name: {figure: _value(values[0, c]) for figure, values in columns.items()}
                | {"support": int(support[c]), "known": int(rows.known[0, c])}
                for c, name in enumerate(self.labels)
            },
            **({} if frame is None else {"worst_errors": list(self._worst(labels, answers, frame["id"]))}),
        }

    def _worst(self, y: NDArray[Any], p: NDArray[Any], ids: Any) -> Iterator[WorstError]:
        """The wrong labels predicted with the highest confidence."""
        sure = np.where((self.named(p) != (y == 1)) & ~np.isnan(y), np.abs(p - THERE), -1.0)
        for place in np.argsort(-sure, axis=None, kind="stable")[:WORST]:
            i, c = np.unravel_index(place, sure.shape)
            if sure[i, c] >= 0:
                said, name = float(p[i, c]), self.labels[c]
                words = (name, f"no {name}") if said < THERE else (f"no {name}", name)
                of_said = max(said, 1 - said)
                yield WorstError(int(ids.index[i]), ids.iloc[i], *words, of_said, 1 - of_said)

    def calibrated(self, labels: NDArray[Any], scores: NDArray[np.float32], **how: Any) -> dict[str, Any] | None:
        """A temperature per label, 1 for labels known in fewer than 50 rows."""
        known = ~np.isnan(labels)
        if known.sum(axis=0).max(initial=0) < FEWEST:
            return None
        fitted = [
            fit_label_temperature(labels[rows, c], scores[rows, c]) if rows.sum() >= FEWEST else 1.0
            for c, rows in enumerate(known.T)
        ]
        return {"temperature": fitted, "n": len(labels)}

    def losses(self, labels: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        rows = self.rows(labels, answers)
        return rows.surprise.sum(axis=1) / np.maximum(rows.known.sum(axis=1), 1)

    def decide(self, found: Evaluation, fitted: Any, measured: Any, *, coverage: float, sensitivity: float) -> None:
        """Per label: the conformal set of answers (yes, no, both) and a threshold."""
        sets, limits = {}, {}
        together: list[NDArray[np.float64]] = []
        for c, name in enumerate(self.labels):
            (y, p), groups = _of_label(measured, c), measured.groups[~np.isnan(measured.labels[:, c])]
            (val_y, val_p) = _of_label(fitted, c)
            bound = conformal_quantile(1 - np.where(val_y, val_p, 1 - val_p), coverage)
            yes, no = (1 - p <= bound) | (p >= THERE), (p <= bound) | (p < THERE)
            held, size = np.where(y, yes, no).astype(float), yes.astype(float) + no
            together.append(np.column_stack([held, size, size == 1]))
            figures = ratio_interval(together[-1], np.ones(len(y)), groups)
            sets[name] = ClassSets(len(y), figures[0], figures[1], bool(np.isinf(bound)))
            threshold = sensitivity_threshold(val_y, val_p, sensitivity)
            figures = []
            if threshold is not None:
                alarm = (p >= threshold)[:, None]
                figures = [*ratio_interval(alarm, y, groups), *ratio_interval(~alarm, ~y, groups)]
            limits[name] = Threshold(threshold, int(val_y.sum()), *figures)
        known = ~np.isnan(measured.labels)
        whole = np.zeros((*known.shape, 3))
        for c, values in enumerate(together):
            whole[known[:, c], c] = values
        share = whole.sum(axis=1) / np.maximum(known.sum(axis=1), 1)[:, None]
        coverage_, size_, single = ratio_interval(share, known.any(axis=1), measured.groups)
        sizes = {str(k): int((whole[..., 1][known] == k).sum()) for k in (1, 2)}
        rule = Sets(coverage_, size_, single, sizes, sets)
        found.conformal = ConformalResult(coverage, len(fitted.labels), {"yes or no, by label": rule})
        found.thresholds = Thresholds(sensitivity, len(fitted.labels), limits)

    def plot(self, found: Evaluation, predicted: Any, folder: Path) -> None:
        # imports matplotlib and scikit-learn
        from mmfusion.evaluation.plots import plot_label_curves

        plot_label_curves(predicted.labels, predicted.probabilities, self.labels, folder / "roc.png")

    def faults(self, cells: Sequence[str | None], column: str, labels: Sequence[str]) -> Iterator[str]:
        names = in_order({part for cell in cells if cell is not None for part in self.parts(cell)})
        if not names:
            yield f"the label column {column!r} has no label"


def _of_label(rows: Any, c: int) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Whether the label is positive, and its probability, over the rows where it is known."""
    known = ~np.isnan(rows.labels[:, c])
    return rows.labels[known, c] == 1, rows.probabilities[known, c]


def _value(figure: float) -> float | None:
    return None if np.isnan(figure) else float(figure)
