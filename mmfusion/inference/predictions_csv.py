"""The table of predictions: ``predictions.csv``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmfusion.files import written_table
from mmfusion.inference.stream import Prediction
from mmfusion.task import DEFAULT, Task, task_named
from mmfusion.text.template import cell_number

#: Appends rows: n ids, their n predictions, and what the further columns say: column -> n cells.
Write = Callable[..., None]

#: what is known of rows that a model is measured on.
MEASURED = ("true_label", "group")


def without_formula(cell: Any) -> Any:
    """A cell, with an apostrophe before it where a spreadsheet would compute it; numbers stay."""
    if not str(cell).startswith(("=", "+", "-", "@", "\t", "\r")) or cell_number(str(cell)) is not None:
        return cell
    return f"'{cell}"


@contextmanager
def prediction_writer(
    path: str | Path,
    class_names: Sequence[str],
    *,
    known: Sequence[str] = (),
    notes: Sequence[str] = (),
    escape_formulas: bool = False,
    task: Task | None = None,
) -> Iterator[Write]:
    """Write a CSV of predictions, ``id, label, probability, p_<class>..., inputs, error``; it is there at the end.

    Args:
        path: File to write; its folder is made.
        class_names: The C names, in the order of the probabilities.
        known: Further columns after the id, of what is known of each row: :data:`MEASURED`.
        task: What has other columns than these; None takes ``multiclass``.
        notes: Further columns before the error, of what else the model says: ``Predictor.note_columns``.
        escape_formulas: Whether an apostrophe is put before texts that a spreadsheet would take for a formula.
    """
    task = task or task_named(DEFAULT, class_names)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_table(path) as table:
        table.writerow(["id", *known, *task.columns, "inputs", *notes, "error"])

        def write(
            ids: Sequence[Any], predicted: Prediction, further: Mapping[str, Sequence[Any]] = MappingProxyType({})
        ) -> None:
            nothing = [""] * len(ids)
            before, after = ([further.get(column, nothing) for column in columns] for columns in (known, notes))
            parts = predicted.probabilities, predicted.inputs, predicted.errors
            for i, (name, row, inputs, error) in enumerate(zip(ids, *parts, strict=True)):
                cells = [*task.cells(row), inputs] if error is None else [""] * (len(task.columns) + 1)
                line = [name, *(cell[i] for cell in before), *cells, *(cell[i] for cell in after), error or ""]
                table.writerow(map(without_formula, line) if escape_formulas else line)

        yield write
