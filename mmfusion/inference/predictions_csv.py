"""The table of predictions: ``predictions.csv``."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmfusion.files import written_whole
from mmfusion.inference.stream import Prediction
from mmfusion.task import DEFAULT, Task, task_named

#: Appends rows: n ids, their n predictions, and for each further column its n cells, empty where unknown.
Write = Callable[..., None]

#: what is known of rows that a model is measured on.
MEASURED = ("true_label", "group")


@contextmanager
def prediction_writer(
    path: str | Path, class_names: Sequence[str], *, known: Sequence[str] = (), task: Task | None = None
) -> Iterator[Write]:
    """Write a CSV of predictions, ``id, label, probability, p_<class>..., inputs, error``; it is there at the end.

    Args:
        path: File to write; its folder is made.
        class_names: The C names, in the order of the probabilities.
        known: Further columns after the id, of what is known of each row: :data:`MEASURED`.
        task: What has other columns than these; None takes ``multiclass``.
    """
    task = task or task_named(DEFAULT, class_names)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", *known, *task.columns, "inputs", "error"])

        def write(ids: Sequence[Any], predicted: Prediction, *told: Sequence[str]) -> None:
            own = list(zip(*told, strict=True)) if told else [()] * len(ids)
            parts = predicted.probabilities, predicted.inputs, predicted.errors
            for name, facts, row, inputs, error in zip(ids, own, *parts, strict=True):
                answer = task.cells(row) if error is None else [""] * len(task.columns)
                table.writerow([name, *facts, *answer, inputs if error is None else "", error or ""])

        yield write
