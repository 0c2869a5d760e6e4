"""What a model is asked. This is the base of every task; the tasks themselves are the room ``tasks``.

A task is one class in one file. All that depends on the kind of question is a method here, and whoever needs it asks
the task of the model or of the processor, never for its name.
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

#: The task where nothing else is said, and that of all models saved by versions that knew no other.
DEFAULT = "multiclass"

#: An answer of N rows: ``label`` and so on of a CSV, or a dict for an application.
Cells = list[str]


class Task:
    """Targets, loss, activation, metrics, calibration, decisions and texts of one kind of question.

    Labels are texts in a table (``cell``), then values in the user's units (``label``: a position, or a row of
    numbers), then what a loss takes (``target``). A model's raw output (N, W) becomes pooled ``scores`` (N, S), and
    these with the calibration the ``answers`` (N, A), which metrics and files take.

    Args:
        labels: Names of the classes, labels, grades or targets, in the order of the outputs.
        form: What the outputs mean, one of :attr:`forms`; None takes the first.
        targets: What :meth:`fitted` found on the training rows; None where it finds nothing.

    Attributes:
        name: What it is registered as.
        forms: Form -> its plain loss. The first is what a run takes where nothing is said.
        metric: Validation metric that chooses the best epoch where nothing is said.
        one_class: Whether each row has exactly one of the classes, as class counts, priors and balanced sampling need.
        in_order: Whether the labels have an order that is given or read, so that an error may be small or large.
        has_probabilities: Whether each answer is the probability of a label.
        fewest: Fewest labels that a model can learn to tell.
        noun: What the labels are called in messages.

    Raises:
        ValueError: No such form.
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
        """Label -> its place."""
        return {label: place for place, label in enumerate(self.labels)}

    def position(self, label: str) -> int:
        """Place of a label; ValueError where there is no such label."""
        if label not in self.positions:
            raise ValueError(f"Unknown label {label!r}; the labels are {', '.join(self.labels)}.")
        return self.positions[label]

    def need_one_class(self, what: str) -> None:
        """Refuse what is made for one class out of several; ValueError names it and the task."""
        if not self.one_class:
            raise ValueError(f"{what} is for rows of one class each, and not for task {self.name}; leave it out.")

    # Cells of a table

    def fixed(self, dataset: Any) -> list[str]:
        """Labels that the options of a data set name; empty where they are found in the rows."""
        return []

    def joined_cell(self, cells: Mapping[str, str | None]) -> tuple[str | None, str]:
        """The cell of a row whose labels are in several columns, and what is wrong with it, else nothing."""
        raise NotImplementedError

    def normal(self, cells: Sequence[str | None]) -> list[str | None]:
        """The cells of a label column as this task writes them."""
        return list(cells)

    def parts(self, cell: str) -> list[str]:
        """Labels that a cell names."""
        return [cell]

    def fault(self, cell: str, known: Sequence[str] | None) -> str | None:
        """Why a cell is no label; ``known`` are the labels of a model, None where the rows make them."""
        if known is not None and not set(self.parts(cell)) <= set(known):
            return f"unknown label; the model knows {', '.join(known)}"
        return None

    def faults(self, cells: Sequence[str | None], column: str, labels: Sequence[str]) -> Iterator[str]:
        """What is wrong with the labels of a data set as a whole, each in a line with the way on."""
        yield from ()

    def strata(self, cells: Sequence[str]) -> list[str]:
        """Names of classes, one for each cell, that a split is stratified by."""
        return list(cells)

    def fitted(self, cells: Sequence[str | None]) -> dict[str, Any] | None:
        """What of the training rows the task needs later, as JSON holds it."""
        return None

    # Labels and targets

    #: Label of a row without one.
    blank: Any = -1

    def read(self, cell: str) -> Any:
        """Cell -> label; ValueError where it is none."""
        raise NotImplementedError

    def encoded(self, cells: Sequence[str | None]) -> NDArray[Any]:
        """(N, ...) labels of cells."""
        raise NotImplementedError

    def written(self, label: Any) -> str:
        """Label -> cell; empty where it is unknown."""
        raise NotImplementedError

    def known(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        """(N,) whether a row has a label."""
        raise NotImplementedError

    def target(self, label: Any) -> Any:
        """What a loss takes of a label, or of a cell: a number or a list of them."""
        raise NotImplementedError

    def truth(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Targets of a batch -> labels."""
        return targets

    def positives(self, labels: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """Label -> (N,) rows that have it; empty where labels are no classes."""
        return {}

    def negatives(self, labels: NDArray[Any]) -> dict[str, NDArray[np.bool_]]:
        """Label -> (N,) rows that are known not to have it."""
        known = self.known(labels)
        return {label: known & ~rows for label, rows in self.positives(labels).items()}

    # The model

    def width(self, count: int) -> int:
        """Outputs of a head for so many labels."""
        return count

    def link(self, count: int) -> nn.Module | None:
        """A layer behind each head: (B, width) -> logits; None for none."""
        return None

    def shaped(self, output: FusionOutput) -> FusionOutput:
        """A head's output, whose logits are (B, width), with the fields of a model's."""
        return output

    def raw(self, output: FusionOutput) -> Tensor:
        """All that an output says, as one tensor (B, W)."""
        assert output.logits is not None
        return output.logits

    def plain_loss(self) -> Any:
        """The loss that a model takes by itself where it is given labels."""
        return registry.create("loss", self.forms[self.form])

    # Answers

    def activate(self, raw: Tensor) -> Tensor:
        """What the raw output (N, W) says, without calibration and in its own precision."""
        raise NotImplementedError

    def pooled(self, passes: Sequence[Tensor]) -> Tensor:
        """Scores (N, S) in float32: the mean answer of several passes, of which a calibration makes others."""
        raise NotImplementedError

    def answers(self, scores: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        """Scores -> answers (N, A) in float32."""
        raise NotImplementedError

    def spoken(self, raw: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
        """Answers (N, A) of one pass."""
        return self.answers(self.pooled([raw]), calibration)

    def uncalibrated(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Answers as the network gives them."""
        raise NotImplementedError

    def joined(self, answers: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], dict[str, Any] | None]:
        """The mean of several models' answers, as scores and the calibration that makes the mean of them."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """S."""
        return len(self.labels)

    @property
    def columns(self) -> Cells:
        """Columns of a table of predictions."""
        return ["label", "probability", *self.answer_columns]

    @property
    def answer_columns(self) -> Cells:
        """Those of them that hold the A answers, in their order."""
        return [f"p_{label}" for label in self.labels]

    def cells(self, answer: NDArray[np.float32]) -> Cells:
        """The cells of one row."""
        raise NotImplementedError

    def told(self, answer: NDArray[np.float32]) -> dict[str, Any]:
        """What an application gets for one row."""
        raise NotImplementedError

    def foremost(self, answer: NDArray[np.float32]) -> int:
        """Place of the label that an explanation of the row is about where none is asked for."""
        return int(answer[: len(self.labels)].argmax())

    def named(self, answers: NDArray[Any]) -> NDArray[Any]:
        """(N, ...) what is decided: a class, the labels that are there, or a value."""
        raise NotImplementedError

    def differ(self, answers: NDArray[Any], others: NDArray[Any]) -> NDArray[np.bool_]:
        """(N,) whether two answers decide otherwise."""
        changed = self.named(answers) != self.named(others)
        found: NDArray[np.bool_] = changed.reshape(len(changed), -1).any(axis=1)
        return found

    def evidence(self, raw: Tensor) -> Tensor:
        """(N, L) an unbounded figure for each label, which explanations take derivatives of."""
        return raw

    def change(self, raw: Tensor, other: Tensor) -> Tensor:
        """(N,) how far two raw outputs are apart, from 0 to 1 where answers are probabilities."""
        return (self.activate(raw) - self.activate(other)).abs().mean(dim=-1)

    # Evaluation

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics that serve this task, by name, those of mmfusion first."""
        raise NotImplementedError

    def rows(self, labels: Any, answers: Any) -> Any:
        """Labels and answers as metrics take them, once ``weighted``."""
        raise NotImplementedError

    def figures(self, labels: NDArray[Any], answers: NDArray[Any], frame: Any = None) -> dict[str, Any]:
        """Fields of :class:`~mmfusion.results.Evaluation` that this task has; the metrics are among them by name.

        Args:
            labels: (N, ...).
            answers: (N, A).
            frame: The rows, for a list of the worst errors; None leaves it out.
        """
        raise NotImplementedError

    def calibrated(self, labels: NDArray[Any], scores: NDArray[np.float32], **how: Any) -> dict[str, Any] | None:
        """What is fitted on validation rows; None where they are too few."""
        raise NotImplementedError

    def losses(self, labels: NDArray[Any], answers: NDArray[Any]) -> NDArray[np.float64]:
        """(N,) what test-time augmentation is to lower: the negative log-likelihood of a row, or the like."""
        raise NotImplementedError

    #: Metrics that a calibration is told by.
    changed_by_calibration: ClassVar[Sequence[str]] = ()

    def decide(self, found: Evaluation, fitted: Any, measured: Any, *, coverage: float, sensitivity: float) -> None:
        """Add conformal answers and decision thresholds, from other rows than those that they are tried on."""

    def set_rule(self, labels: NDArray[Any], answers: NDArray[Any], coverage: float) -> dict[str, Any] | None:
        """The rule for sets of classes that hold the true one, as a model is saved with it; None where it has none."""
        return None

    def sets(self, answers: NDArray[Any], calibration: Mapping[str, Any] | None) -> NDArray[np.bool_] | None:
        """(N, A) whether a class is in the set of a row, by the rule of a calibration; None where that has none."""
        return None

    def plot(self, found: Evaluation, predicted: Any, folder: Any) -> None:
        """Draw the pictures of an evaluation."""


def task_named(name: str, labels: Sequence[str] = (), **how: Any) -> Task:
    """The task of a name, with the arguments of :class:`Task`; ValueError where there is no such task."""
    kind: type[Task] = registry.get("task", name)
    if "name" not in vars(kind):
        kind.name = name
    return kind(labels, **how)


def task_of(model: Any, labels: Sequence[str] = (), targets: Mapping[str, Any] | None = None) -> Task:
    """The task of a model with its labels; of a module that knows of none, the default one."""
    own = getattr(model, "task", None)
    if not isinstance(own, Task):
        return task_named(DEFAULT, labels)
    return task_named(own.name, labels, form=own.form, targets=targets)
