"""The table of predictions: ``predictions.csv``."""

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmfusion.files import written_whole
from mmfusion.inference.stream import Prediction

#: Appends rows: n ids, their n predictions, and with ``true_labels`` their n labels, empty where unknown.
Write = Callable[..., None]


@contextmanager
def prediction_writer(path: str | Path, class_names: Sequence[str], *, true_labels: bool = False) -> Iterator[Write]:
    """Write a CSV of predictions, ``id, label, probability, p_<class>..., inputs, error``; it is there at the end.

    Args:
        path: File to write; its folder is made.
        class_names: The C names, in the order of the probabilities.
        true_labels: Also write the known labels, as ``true_label`` after the id.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        truth = ["true_label"] if true_labels else []
        table.writerow(
            ["id", *truth, "label", "probability", *(f"p_{name}" for name in class_names), "inputs", "error"]
        )

        def write(ids: Sequence[Any], predicted: Prediction, labels: Sequence[str] = ()) -> None:
            truths = [[name] for name in labels] if true_labels else [[]] * len(ids)
            parts = predicted.probabilities, predicted.inputs, predicted.errors
            for name, truth, row, inputs, error in zip(ids, truths, *parts, strict=True):
                if error is None:
                    best = int(row.argmax())
                    cells = [class_names[best], f"{row[best]:.6g}", *(f"{p:.6g}" for p in row), inputs, ""]
                else:
                    cells = ["", "", *([""] * len(row)), "", error]
                table.writerow([name, *truth, *cells])

        yield write
