"""The task ``ordinal``: ordered grades, for which larger errors are worse."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from mmfusion.evaluation.conformal import conformal_quantile, set_figures
from mmfusion.evaluation.metrics import Metrics
from mmfusion.evaluation.weighted import Floats, Rows
from mmfusion.losses.ordinal import corn_log_probabilities, cumulative_log_probabilities
from mmfusion.registry import register
from mmfusion.results import HEADLINE, Sets
from mmfusion.tasks.multiclass import Multiclass
from mmfusion.text.template import cell_number

#: Form of the outputs -> log P(grade) (B, K) of the logits.
_LOG_PROBABILITIES = {
    "corn": corn_log_probabilities,
    "cumulative": cumulative_log_probabilities,
    "softmax": lambda logits: logits.log_softmax(dim=-1),
}


@register("task", "ordinal")
class Ordinal(Multiclass):
    """Grades ordered by number, or as in ``dataset.grades``.

    The loss defines the outputs: ``corn`` and ``cumulative_link`` use the order, while ``ce`` and its variants ignore
    it. The predicted grade is always the median of the probabilities.
    """

    name = "ordinal"
    forms: ClassVar[Mapping[str, str]] = {"corn": "corn", "cumulative": "cumulative_link", "softmax": "ce"}
    metric = "kappa"
    in_order = True
    noun = "grades"

    # Cells of a table

    def fixed(self, dataset: Any) -> list[str]:
        return list(dataset.grades)

    def faults(self, cells: Sequence[str | None], column: str, labels: Sequence[str]) -> Iterator[str]:
        prefixes = {label.rstrip("0123456789") for label in labels}
        numbered = all(cell_number(label) is not None for label in labels)
        numbered |= len(prefixes) == 1 and all(label[-1:].isdigit() for label in labels)
        if not numbered and not self.labels:
            names = ", ".join(labels)
            yield f"the grades of {column!r} are not numbers ({names}); list them in order in dataset.grades"

    # The model

    def width(self, count: int) -> int:
        return {"corn": count - 1, "cumulative": 1, "softmax": count}[self.form]

    def link(self, count: int) -> nn.Module | None:
        return Thresholds(count - 1) if self.form == "cumulative" else None

    # Answers

    def _logs(self, raw: Tensor) -> Tensor:
        found: Tensor = _LOG_PROBABILITIES[self.form](raw)
        return found

    def activate(self, raw: Tensor) -> Tensor:
        return self._logs(raw).exp()

    def pooled(self, passes: Sequence[Tensor]) -> Tensor:
        return super().pooled([self._logs(each.float()) for each in passes])

    def spoken(self, raw: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        return self.answers(self._logs(raw.float()), calibration)

    def named(self, answers: NDArray[Any]) -> NDArray[Any]:
        return median_grades(answers)

    def evidence(self, raw: Tensor) -> Tensor:
        return self._logs(raw)

    # Evaluation

    @property
    def metrics(self) -> Mapping[str, Any]:
        return Metrics(self.name, ("kappa", "mae_grades", *HEADLINE))

    def rows(self, labels: Any, answers: Any) -> Rows:
        return GradeRows(labels, answers)

    def calibrated(self, labels: NDArray[Any], scores: NDArray[np.float32], **how: Any) -> dict[str, Any] | None:
        return super().calibrated(labels, scores, **how, task=self)

    def set_rule(self, labels: NDArray[Any], answers: NDArray[Any], coverage: float) -> dict[str, Any] | None:
        bound = conformal_quantile(adjacent_scores(answers)[np.arange(len(labels)), labels], coverage)
        return {"coverage": coverage, "method": "adjacent", "thresholds": [bound]}

    def sets(self, answers: NDArray[Any], calibration: Mapping[str, Any] | None) -> NDArray[np.bool_] | None:
        saved = (calibration or {}).get("conformal")
        if saved is None:
            return None
        if not isinstance(saved, dict) or saved.get("method") != "adjacent" or len(saved.get("thresholds") or ()) != 1:
            raise ValueError(f"calibration.conformal of the model is not a rule for grades: {saved}.")
        return adjacent_sets(answers, saved["thresholds"][0])

    def conformal_sets(self, fitted: Any, measured: Any, coverage: float) -> dict[str, Sets]:
        """Conformal sets of adjacent grades."""
        of_truth = adjacent_scores(fitted.probabilities)[np.arange(len(fitted.labels)), fitted.labels]
        bound = conformal_quantile(of_truth, coverage)
        sets = adjacent_sets(measured.probabilities, bound)
        undecided = np.full(sets.shape[1], np.isinf(bound))
        return {"adjacent": set_figures(sets, measured.labels, measured.groups, self.labels, undecided)}


class GradeRows(Rows):
    """Rows of grades, predicted by the median."""

    def decided(self, p: Floats) -> NDArray[np.int64]:
        return median_grades(p)


class Thresholds(nn.Module):
    """Increasing thresholds of a cumulative link: a score (B, 1) -> logits (B, count) of exceeding each.

    They are initialized for grades of equal frequency.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        start = torch.logit(torch.arange(1, count + 1) / (count + 1))
        self.first = nn.Parameter(start[:1].clone())
        self.log_gaps = nn.Parameter(start.diff().log())

    def forward(self, score: Tensor) -> Tensor:
        """Score minus thresholds."""
        return score - torch.cat([self.first, self.first + self.log_gaps.exp().cumsum(0)])


def median_grades(probabilities: ArrayLike) -> NDArray[np.int64]:
    """(N, K) -> (N,), the first grade with cumulative probability of at least half, which minimizes absolute error."""
    p = np.asarray(probabilities, dtype=np.float64)
    found: NDArray[np.int64] = (np.cumsum(p, axis=1)[:, :-1] < p.sum(axis=1, keepdims=True) / 2 - 1e-12).sum(axis=1)
    return found


def adjacent_scores(probabilities: ArrayLike) -> NDArray[np.float64]:
    """(N, K) nonconformity scores: probability of the interval grown from the median before it includes the grade.

    It grows by the more likely of its two neighbors, so the grades below any bound are adjacent. (Including the grade's
    own probability, the last grade of each row would score 1 and the sets would exceed the target coverage.)
    """
    p = np.asarray(probabilities, dtype=np.float64)
    p = p / p.sum(axis=1, keepdims=True)
    rows, count = np.arange(len(p)), p.shape[1]
    padded = np.pad(p, ((0, 0), (1, 1)), constant_values=-1.0)
    low = high = median_grades(p)
    scores, held = np.zeros_like(p), p[rows, low]
    for _ in range(count - 1):
        below, above = padded[rows, low], padded[rows, high + 2]
        down = below >= above
        low, high = np.where(down, low - 1, low), np.where(down, high, high + 1)
        scores[rows, np.where(down, low, high)] = held
        held = held + np.where(down, below, above)
    return scores


def adjacent_sets(probabilities: ArrayLike, bound: float) -> NDArray[np.bool_]:
    """(N, K) whether the score of a grade is within the bound; the median always is."""
    inside: NDArray[np.bool_] = adjacent_scores(probabilities) <= bound
    return inside
