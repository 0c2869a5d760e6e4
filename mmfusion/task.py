"""Base class of tasks; the tasks themselves are in the package ``tasks``.

A task is one class in one file. Everything that depends on the kind of prediction is one of its methods; others use
the task of the model or processor and never compares its name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from mmfusion import registry
from mmfusion.names import check_choice

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from mmfusion.outputs import FusionOutput
    from mmfusion.results import Evaluation

#: Default task, also of models saved before there were others.
DEFAULT = "multiclass"

#: Values of one row: cells of a CSV, or a dict for an application.
Cells = list[str]


class Task:
    """Targets, loss, activation, metrics, calibration, decisions and texts of one kind of prediction.

    A label is first text in a table (``cell``), then a value in the user's units (``label``: an index, or a row of
    numbers), then the input of a loss (``target``). A model's raw output (N, W) is pooled to ``scores`` (N, S), which
    the calibration turns into ``answers`` (N, A) for metrics and files.

    Args:
        labels: Names of the classes, labels, grades or targets, in the order of the outputs.
        form: Meaning of the outputs, one of :attr:`forms`; None uses the first.
        targets: Result of :meth:`fitted` on the training rows, or None.

    Attributes:
        name: Registered name.
        forms: Form -> its default loss. The first form is the default.
        metric: Default validation metric for selecting the best epoch.
        one_class: Whether each row has exactly one class, as class counts, priors and balanced sampling require.
        in_order: Whether the labels are ordered, so that errors have a size.
        has_probabilities: Whether each answer is the probability of a label.
        fewest: Minimum number of labels.
        noun: Name of the labels in messages.

    Raises:
        ValueError: The form does not exist.
    """

    name: str = DEFAULT
    forms: ClassVar[Mapping[str, str]]
    metric: ClassVar[str]
    one_class: ClassVar[bool] = False
    in_order: ClassVar[bool] = False
    has_probabilities: ClassVar[bool] = True
    fewest: ClassVar[int] = 1
    noun: ClassVar[str] = "labels"

    def __init__(
        self, labels: Sequence[str] = (), form: str | None = None, targets: Mapping[str, Any] | None = None
    ) -> None:
        self.labels, self.targets = list(labels), dict(targets or {})
        self.form = next(iter(self.forms)) if form is None else form
        check_choice(f"the form of task {self.name!r}", self.form, tuple(self.forms))

    @cached_property
    def positions(self) -> dict[str, int]:
        """Label -> its index."""
        return {label: place for place, label in enumerate(self.labels)}

    def position(self, label: str) -> int:
        """Index of a label; ValueError if unknown."""
        if label not in self.positions:
            raise ValueError(f"Unknown label {label!r}; known: {', '.join(self.labels)}.")
        return self.positions[label]

    def need_one_class(self, what: str) -> None:
        """Raise ValueError for a feature that applies to ``multiclass`` only."""
        if not self.one_class:
            raise ValueError(f"{what} needs one class per row and does not support task {self.name}; remove it.")

    # Cells of a table

    def fixed(self, dataset: Any) -> list[str]:
        """Labels given by the options of a data set; empty if they come from the rows."""
        return []

    def joined_cell(self, cells: Mapping[str, str | None]) -> tuple[str | None, str]:
        """Join the cells of several label columns; returns the cell and an error or an empty text."""
        raise NotImplementedError

    def normal(self, cells: Sequence[str | None]) -> list[str | None]:
        """The cells of a label column in the normal form of this task."""
        return list(cells)

    def parts(self, cell: str) -> list[str]:
        """Labels in a cell."""
        return [cell]

    def fault(self, cell: str, known: Sequence[str] | None) -> str | None:
        """Why a cell is not a label, or None; ``known`` are the labels of a model, None if the rows define them."""
        if known is not None and not set(self.parts(cell)) <= set(known):
            return f"unknown label; the model knows {', '.join(known)}"
        return None

    def faults(self, cells: Sequence[str | None], column: str, labels: Sequence[str]) -> Iterator[str]:
        """Problems of all labels of a data set, each one line with a fix."""
        yield from ()

    def strata(self, cells: Sequence[str]) -> list[str]:
        """Stratum of each cell for drawing a split."""
        return list(cells)

    def fitted(self, cells: Sequence[str | None]) -> dict[str, Any] | None:
        """Statistics of the training rows that the task needs later, for JSON."""
        return None

    # Labels and targets

    #: Label of a row without one.
    blank: Any = -1

    def read(self, cell: str) -> Any:
        """Convert a cell to a label; ValueError if invalid."""
        raise NotImplementedError

    def encoded(self, cells: Sequence[str | None]) -> NDArray[Any]:
        """(N, ...) labels of cells."""
        raise NotImplementedError

    def written(self, label: Any) -> str:
        """Convert a label to a cell; empty if unknown."""
        raise NotImplementedError

    def known(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """(N,) whether a row has a label."""
        raise NotImplementedError

    def target(self, label: Any) -> Any:
        """Convert a label or cell to the input of a loss: a number or a list."""
        raise NotImplementedError

    def truth(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Convert targets of a batch to labels."""
        return targets

    def positives(self, labels: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """Label -> (N,) rows with it; empty if labels are not classes."""
        return {}

    def negatives(self, labels: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """Label -> (N,) rows known not to have it."""
        known = self.known(labels)
        return {label: known & ~rows for label, rows in self.positives(labels).items()}

    # The model

    def width(self, count: int) -> int:
        """Number of outputs of a head for ``count`` labels."""
        return count

    def link(self, count: int) -> nn.Module | None:
        """A layer after each head: (B, width) -> logits, or None."""
        return None

    def shaped(self, output: FusionOutput) -> FusionOutput:
        """Convert a head's output, with logits (B, width), to the fields of a model output."""
        return output

    def raw(self, output: FusionOutput) -> Tensor:
        """All outputs as one tensor (B, W)."""
        assert output.logits is not None
        return output.logits

    def plain_loss(self) -> Any:
        """Default loss of a model that is given labels."""
        return registry.create("loss", self.forms[self.form])

    # Answers

    def activate(self, raw: Tensor) -> Tensor:
        """Uncalibrated predictions from the raw output (N, W), in its own precision."""
        raise NotImplementedError

    def pooled(self, passes: Sequence[Tensor]) -> Tensor:
        """Scores (N, S) in float32: the mean over passes, input of the calibration."""
        raise NotImplementedError

    def answers(self, scores: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        """Convert scores to answers (N, A) in float32."""
        raise NotImplementedError

    def spoken(self, raw: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        """Answers (N, A) of one pass."""
        return self.answers(self.pooled([raw]), calibration)

    def uncalibrated(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answers before calibration."""
        raise NotImplementedError

    def joined(self, answers: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], dict[str, Any] | None]:
        """Mean of several models' answers, as scores and a calibration that reproduces it."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Number of scores S."""
        return len(self.labels)

    @property
    def columns(self) -> Cells:
        """Columns of a table of predictions."""
        return ["label", "probability", *self.answer_columns]

    @property
    def answer_columns(self) -> Cells:
        """The columns of the A answers, in order."""
        return [f"p_{label}" for label in self.labels]

    def cells(self, answer: NDArray[np.float32]) -> Cells:
        """Cells of one row."""
        raise NotImplementedError

    def told(self, answer: NDArray[np.float32]) -> dict[str, Any]:
        """Result of one row for an application."""
        raise NotImplementedError

    def foremost(self, answer: NDArray[np.float32]) -> int:
        """Index of the label that an explanation is about by default."""
        return int(answer[: len(self.labels)].argmax())

    def named(self, answers: NDArray[Any]) -> NDArray[Any]:
        """(N, ...) decisions: a class, the positive labels, or a value."""
        raise NotImplementedError

    def differ(self, answers: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
        """(N,) whether two answers lead to different decisions."""
        changed = self.named(answers) != self.named(others)
        found: NDArray[np.bool_] = changed.reshape(len(changed), -1).any(axis=1)
        return found

    def evidence(self, raw: Tensor) -> Tensor:
        """(N, L) unbounded score per label, whose derivatives explanations use."""
        return raw

    def change(self, raw: Tensor, other: Tensor) -> Tensor:
        """(N,) difference of two raw outputs, from 0 to 1 for probabilities."""
        return (self.activate(raw) - self.activate(other)).abs().mean(dim=-1)

    # Evaluation

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of this task by name, built-in ones first."""
        raise NotImplementedError

    def rows(self, labels: Any, answers: Any) -> Any:
        """Labels and answers for metrics, before weighting."""
        raise NotImplementedError

    def figures(self, labels: NDArray[Any], answers: NDArray[Any], frame: Any = None) -> dict[str, Any]:
        """Fields of :class:`~mmfusion.results.Evaluation` for this task, including the metrics by name.

        Args:
            labels: (N, ...).
            answers: (N, A).
            frame: The rows, for a list of the worst errors; None omits it.
        """
        raise NotImplementedError

    def calibrated(self, labels: NDArray[Any], scores: NDArray[np.float32], **how: Any) -> dict[str, Any] | None:
        """Calibration fitted on validation rows; None if they are too few."""
        raise NotImplementedError

    def losses(self, labels: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        """(N,) loss that test-time augmentation should lower, such as the negative log-likelihood."""
        raise NotImplementedError

    #: Metrics that show the effect of calibration.
    changed_by_calibration: ClassVar[Sequence[str]] = ()

    def decide(self, found: Evaluation, fitted: Any, measured: Any, *, coverage: float, sensitivity: float) -> None:
        """Add conformal sets and decision thresholds, fitted on other rows than those evaluated."""

    def set_rule(self, labels: NDArray[Any], answers: NDArray[Any], coverage: float) -> dict[str, Any] | None:
        """Conformal rule saved with a model, or None."""
        return None

    def sets(self, answers: NDArray[Any], calibration: Mapping[str, Any] | None) -> NDArray[np.bool_] | None:
        """(N, A) whether a class is in the conformal set of a row; None without a rule."""
        return None

    def plot(self, found: Evaluation, predicted: Any, folder: Any) -> None:
        """Draw the plots of an evaluation."""


def task_named(name: str, labels: Sequence[str] = (), **how: Any) -> Task:
    """The task with a name, with the arguments of :class:`Task`; ValueError if unknown."""
    kind: type[Task] = registry.get("task", name)
    if "name" not in vars(kind):
        kind.name = name
    return kind(labels, **how)


def task_of(model: Any, labels: Sequence[str] = (), targets: Mapping[str, Any] | None = None) -> Task:
    """The task of a model with its labels; the default for modules without one."""
    own = getattr(model, "task", None)
    if not isinstance(own, Task):
        return task_named(DEFAULT, labels)
    return task_named(own.name, labels, form=own.form, targets=targets)
