"""Writes ``predictions.csv``."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmfusion.files import written_table
from mmfusion.inference.stream import Prediction
from mmfusion.task import DEFAULT, Task, task_named
from mmfusion.text.template import cell_number

#: Appends rows: n ids, their n predictions, and further columns: column -> n cells.
Write = Callable[..., None]

#: Columns known for evaluated rows.
MEASURED = ("true_label", "group")


def without_formula(cell: Any) -> Any:
    """Prefix a cell with an apostrophe if a spreadsheet would evaluate it; numbers are unchanged."""
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
    """Write a CSV of predictions, ``id, label, probability, p_<class>..., inputs, error``; it appears when complete.

    Args:
        path: File to write; its folder is created.
        class_names: The C names in the order of the probabilities.
        known: Columns to add after the id, with known values of each row: :data:`MEASURED`.
        task: Task, which defines the columns; None means ``multiclass``.
        notes: Columns to add before the error: ``Predictor.note_columns``.
        escape_formulas: Whether to prefix texts with an apostrophe if a spreadsheet would take them for a formula.
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
