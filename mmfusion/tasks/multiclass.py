"""The task ``multiclass``: one class out of several."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfusion.data.labels import label_faults
from mmfusion.evaluation.calibration import fitted_classes
from mmfusion.evaluation.conformal import METHODS, conformal_figures, fit_conformal, saved_rule
from mmfusion.evaluation.metrics import METRICS, classification_metrics
from mmfusion.evaluation.selective import selective_figures
from mmfusion.evaluation.temperature import as_logits
from mmfusion.evaluation.thresholds import threshold_figures
from mmfusion.evaluation.weighted import Rows
from mmfusion.inference.temperature import class_probabilities
from mmfusion.inference.tta import mean_log_probabilities
from mmfusion.registry import register
from mmfusion.results import ConformalResult, Evaluation, Sets, Thresholds, WorstError
from mmfusion.task import Task
from mmfusion.text.template import cell_number

#: Maximum number of errors listed.
WORST = 12


@register("task", "multiclass")
class Multiclass(Task):
    """One of several classes: softmax and cross-entropy.

    With ``dataset.label_columns`` exactly one column is 1 in each row.
    """

    name = "multiclass"
    forms: ClassVar[Mapping[str, str]] = {"softmax": "ce"}
    metric = "balanced_accuracy"
    one_class = True
    fewest = 2
    noun = "classes"
    changed_by_calibration = ("ece", "nll", "brier")

    # Cells of a table

    def joined_cell(self, cells: Mapping[str, str | None]) -> tuple[str | None, str]:
        wrong = [name for name, cell in cells.items() if cell_number(cell) not in (0, 1)]
        chosen = [name for name, cell in cells.items() if cell_number(cell) == 1]
        fault = ""
        if wrong:
            fault = f"the label column {wrong[0]} is neither 0 nor 1"
        elif len(chosen) != 1:
            told = f"{len(chosen)} label columns are 1 ({', '.join(chosen)})" if chosen else "no label column is 1"
            fault = f"{told}, but exactly one must be"
        return (chosen[0] if len(chosen) == 1 and not wrong else None), fault

    def faults(self, cells: Sequence[str | None], column: str, labels: Sequence[str]) -> Iterator[str]:
        yield from label_faults(cells, column)

    # Labels and targets

    def read(self, cell: str) -> int:
        return self.position(cell)

    def encoded(self, cells: Sequence[str | None]) -> NDArray[np.int64]:
        return np.array([-1 if cell is None else self.read(cell) for cell in cells], dtype=np.int64)

    def written(self, label: Any) -> str:
        return self.labels[label] if label >= 0 else ""

    def known(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = labels >= 0
        return found

    def target(self, label: Any) -> int:
        return self.read(label) if isinstance(label, str) else int(label)

    def positives(self, labels: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        return {label: labels == place for place, label in enumerate(self.labels)}

    # Answers

    def activate(self, raw: Tensor) -> Tensor:
        return raw.softmax(dim=-1)

    def pooled(self, passes: Sequence[Tensor]) -> Tensor:
        return mean_log_probabilities(passes)

    def answers(self, scores: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        return class_probabilities(scores, calibration)

    def spoken(self, raw: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        return class_probabilities(raw, calibration)

    def uncalibrated(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.exp(scores)

    def joined(self, answers: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], dict[str, Any] | None]:
        with np.errstate(divide="ignore"):  # probabilities may be 0
            return np.log(np.stack(answers).mean(axis=0, dtype=np.float64)).astype(np.float32), None

    def cells(self, answer: NDArray[np.float32]) -> list[str]:
        best = int(self.named(answer[None])[0])
        return [self.labels[best], f"{answer[best]:.6g}", *(f"{p:.6g}" for p in answer)]

    def told(self, answer: NDArray[np.float32]) -> dict[str, Any]:
        by_class = dict(zip(self.labels, map(float, answer), strict=True))
        label = self.labels[int(self.named(answer[None])[0])]
        return {"label": label, "probability": by_class[label], "probabilities": by_class}

    def foremost(self, answer: NDArray[np.float32]) -> int:
        return int(self.named(answer[None])[0])

    def named(self, answers: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[np.int64] = answers.argmax(axis=1)
        return found

    def change(self, raw: Tensor, other: Tensor) -> Tensor:
        """Total variation distance."""
        return (self.activate(raw) - self.activate(other)).abs().sum(dim=-1) / 2

    # Evaluation

    @property
    def metrics(self) -> Mapping[str, Any]:
        return METRICS

    def rows(self, labels: Any, answers: Any) -> Rows:
        return Rows(labels, answers)

    def figures(self, labels: NDArray[Any], answers: NDArray[Any], frame: Any = None) -> dict[str, Any]:
        found = classification_metrics(labels, answers, self.labels, self)
        if frame is not None:
            found |= {"selective": selective_figures(labels, answers, self.named(answers))}
            found |= {"worst_errors": self._worst(labels, answers, frame)}
        return found

    def _worst(self, y: NDArray[Any], p: NDArray[Any], frame: Any) -> list[WorstError]:
        """The wrong rows with the highest predicted probability, with true and predicted class."""
        ids, said = frame["id"], self.named(p)
        wrong = np.flatnonzero(said != y)
        worst = wrong[np.argsort(-p[wrong].max(axis=1), kind="stable")][:WORST]
        rows = zip(worst, ids.index[worst], ids.iloc[worst], y[worst], said[worst], strict=True)
        names = self.labels
        return [
            WorstError(int(row), id_, names[true], names[named], float(p[i, named]), float(p[i, true]))
            for i, row, id_, true, named in rows
        ]

    def calibrated(self, labels: NDArray[Any], scores: NDArray[np.float32], **how: Any) -> dict[str, Any] | None:
        return fitted_classes(labels, torch.from_numpy(as_logits(self.uncalibrated(scores))), **how)

    def losses(self, labels: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        return -as_logits(answers)[np.arange(len(labels)), labels]

    def decide(self, found: Evaluation, fitted: Any, measured: Any, *, coverage: float, sensitivity: float) -> None:
        found.conformal = ConformalResult(coverage, len(fitted.labels), self.conformal_sets(fitted, measured, coverage))
        pair, tried = (fitted.labels, fitted.probabilities), (measured.labels, measured.probabilities)
        per_class = threshold_figures(pair, tried, measured.groups, self.labels, sensitivity)
        found.thresholds = Thresholds(sensitivity, len(fitted.labels), per_class)

    def conformal_sets(self, fitted: Any, measured: Any, coverage: float) -> dict[str, Sets]:
        """Method -> metrics of its conformal sets on the evaluated rows."""
        told, sets = (measured.labels, measured.probabilities, measured.groups), {}
        for method, by_class in product(METHODS, (False, True)):
            how: dict[str, Any] = {"coverage": coverage, "method": method, "by_class": by_class}
            rule = fit_conformal(fitted.labels, fitted.probabilities, **how)
            sets[f"{method}{' by class' if by_class else ''}"] = conformal_figures(rule, *told, self.labels)
        return sets

    def set_rule(self, labels: NDArray[Any], answers: NDArray[Any], coverage: float) -> dict[str, Any] | None:
        rule = fit_conformal(labels, answers, coverage=coverage)
        return {"coverage": coverage, "method": rule.method, "thresholds": rule.thresholds.tolist()}

    def sets(self, answers: NDArray[Any], calibration: Mapping[str, Any] | None) -> NDArray[np.bool_] | None:
        rule = saved_rule(calibration, len(self.labels))
        return None if rule is None else rule.sets(answers)

    def plot(self, found: Evaluation, predicted: Any, folder: Path) -> None:
        # imports matplotlib and scikit-learn
        from mmfusion.evaluation.plots import plot_confusion_matrix, plot_reliability, plot_risk_coverage, plot_roc

        y, p = predicted.labels, predicted.probabilities
        plot_confusion_matrix(found.confusion_matrix, found.classes, folder / "confusion_matrix.png")
        plot_roc(y, p, found.classes, folder / "roc.png")
        plot_reliability(y, p, folder / "reliability.png", predicted.uncalibrated if found.calibration else None)
        plot_risk_coverage(y, p, folder / "risk_coverage.png")
