"""The table of predictions: ``predictions.csv``."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from mmfusion.files import written_whole
from mmfusion.inference.stream import Prediction


class PredictionWriter:
    """CSV of predictions: ``id, label, probability, p_<class>..., error``, with ``true_label`` after the id on request.

    A context manager. The file is there once all rows are written.

    Args:
        path: File to write; its folder is made.
        class_names: The C names, in the order of the probabilities.
        true_labels: Also write the known labels.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], *, true_labels: bool = False) -> None:
        self.path = Path(path)
        self.class_names = list(class_names)
        self.true_labels = true_labels

    def __enter__(self) -> PredictionWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            partial = stack.enter_context(written_whole(self.path))
            self._csv = csv.writer(
                stack.enter_context(partial.open("w", encoding="utf-8", newline="")), lineterminator="\n"
            )
            truth = ["true_label"] if self.true_labels else []
            names = (f"p_{name}" for name in self.class_names)
            self._csv.writerow(["id", *truth, "label", "probability", *names, "error"])
            self._stack = stack.pop_all()
        return self

    def write(self, ids: Sequence[Any], predicted: Prediction, true_labels: Sequence[str] | None = None) -> None:
        """Append rows.

        Args:
            ids: n identifiers.
            predicted: n predictions.
            true_labels: n names, empty where unknown; only with ``true_labels=True``.
        """
        truths = [[name] for name in true_labels] if self.true_labels and true_labels is not None else [[]] * len(ids)
        for name, truth, row, error in zip(ids, truths, predicted.probabilities, predicted.errors, strict=True):
            if error is None:
                best = int(row.argmax())
                cells = [self.class_names[best], f"{row[best]:.6g}", *(f"{p:.6g}" for p in row), ""]
            else:
                cells = ["", "", *([""] * len(row)), error]
            self._csv.writerow([name, *truth, *cells])

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)
