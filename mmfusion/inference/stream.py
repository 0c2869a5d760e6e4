"""Streaming inference: rows in, probabilities out, in the order of the rows and in bounded memory."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmfusion.data import CaseTable, MultimodalDataset, Processor
from mmfusion.data.processor import NOT_INPUTS
from mmfusion.inference.shares import shares_of
from mmfusion.inference.tta import calibrated, probabilities, views_of

#: what a row that cannot be read raises: a missing or damaged file, an array that is no picture, an empty row.
ROW_ERRORS = (ValueError, OSError, TypeError)


@dataclass(frozen=True)
class Predicted:
    """Predictions of consecutive rows.

    Attributes:
        start: position of the first row.
        probabilities: (n, C) float32; a row with an error holds NaN.
        errors: n texts, None where the row could be read.
        shares: what router and gates gave each row, name -> (n, ...), as :func:`~mmfusion.inference.shares.shares_of`
            names them; NaN in a row that could not be read, and nothing where no row of the batch could.
    """

    start: int
    probabilities: NDArray[np.float32]
    errors: list[str | None]
    shares: dict[str, NDArray[np.float32]] = field(default_factory=dict)


class AllRows(Dataset[dict[str, Any]]):
    """Every row of a table in its order, encoded; a row that cannot be read raises ``ValueError`` when it is asked for.

    Args:
        cases: the table, with its problems.
        processor: how a case becomes tensors.
        open_rows: makes the data set of sound rows; None encodes them with the processor
            (:class:`~mmfusion.data.MultimodalDataset`).
        refuse_empty: whether a row without a modality that the model reads counts as unreadable. Otherwise the model
            says what it says without any: so are all models of a comparison measured on the same rows.

    Attributes:
        ids: (rows,) texts; ``row-N`` where a row has no id.
        labels: (rows,) int64 positions of the classes, -1 where unknown.
        collate: list of items -> batch.
    """

    def __init__(
        self,
        cases: CaseTable,
        processor: Processor,
        *,
        open_rows: Callable[[CaseTable], Any] | None = None,
        refuse_empty: bool = False,
    ) -> None:
        frame = cases.frame
        self.ids = row_ids(cases)
        self._refuse_empty = refuse_empty
        self._errors: dict[int, str] = {}
        for problem in cases.problems:
            if problem.unreadable:
                position = frame.index.get_loc(problem.row)
                known = self._errors.get(position)
                self._errors[position] = f"{known}; {problem.message}" if known else problem.message
        readable = np.ones(len(frame), dtype=bool)
        readable[list(self._errors)] = False
        sound = replace(cases, frame=frame[readable], problems=[])
        self._rows = MultimodalDataset(sound, processor) if open_rows is None else open_rows(sound)
        self.collate = self._rows.collate
        self._position = np.cumsum(readable) - 1
        self.labels = np.full(len(frame), -1)
        self.labels[readable] = self._rows.labels

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if index in self._errors:
            raise ValueError(self._errors[index])
        item = self._rows[int(self._position[index])]
        return with_content(item) if self._refuse_empty else item


def row_ids(cases: CaseTable) -> list[str]:
    """The id of each row; ``row-N`` where it has none."""
    return [f"row-{row}" if id_ is None else id_ for row, id_ in cases.frame["id"].items()]


def with_content(item: dict[str, Any]) -> dict[str, Any]:
    """The encoded row itself.

    Raises:
        ValueError: it has neither an image nor a text for this model: a prediction would be a guess.
    """
    if not any(item.get(key) for key in ("image_present", "text_present")):
        kinds = [kind for kind in ("image", "text") if f"{kind}_present" in item]
        raise ValueError(f"The row has no {' and no '.join(kinds)} for the model to read.")
    return item


class _Guarded(Dataset[Any]):
    """A data set whose unreadable rows come out as the text of their error."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any] | str:
        try:
            return self.rows[index]
        except ROW_ERRORS as error:
            return " ".join(str(error).split()) or type(error).__name__


@dataclass(frozen=True)
class _Collate:
    collate: Callable[[list[Any]], dict[str, Any]]

    def __call__(self, items: list[Any]) -> tuple[dict[str, Any] | None, list[str | None]]:
        readable = [item for item in items if not isinstance(item, str)]
        errors = [item if isinstance(item, str) else None for item in items]
        return (self.collate(readable) if readable else None), errors


def predict_rows(
    model: nn.Module,
    dataset: Any,
    collate: Callable[[list[Any]], dict[str, Any]],
    *,
    num_classes: int,
    batch_size: int = 64,
    tta: bool = False,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    workers: int = 0,
) -> Iterator[Predicted]:
    """Predict every row of a data set, batch by batch.

    Args:
        model: a ``FusionModel``; it is put in evaluation mode, and runs where its weights are. Or an ``OnnxModel``.
        dataset: anything with a length whose items are what ``collate`` takes; an item that cannot be read raises
            ``ValueError`` or ``OSError``, which becomes the row's error.
        collate: list of items -> keyword tensors (``Processor.collate``).
        num_classes: C.
        batch_size: rows per step.
        tta: average over test-time augmentations.
        dtype: autocast to this type, e.g. ``torch.bfloat16``; None computes in the weights' own.
        channels_last: memory format of the images.
        workers: loader processes.

    Yields:
        One :class:`Predicted` per batch, in order.

    Raises:
        ValueError: ``batch_size`` is below one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1.")
    weights = next(model.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device
    loader = DataLoader(_Guarded(dataset), batch_size=batch_size, num_workers=workers, collate_fn=_Collate(collate))
    model.eval()
    start = 0
    for batch, errors in loader:
        readable = np.array([error is None for error in errors])
        result = np.full((len(errors), num_classes), np.nan, dtype=np.float32)
        shares: dict[str, NDArray[np.float32]] = {}
        if batch is not None:
            inputs = {k: _move(v, device, channels_last) for k, v in batch.items() if k not in NOT_INPUTS}
            autocast = contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)
            with torch.inference_mode(), autocast:
                found, given = _answers(model, views_of(inputs) if tta else [inputs])
            result[readable] = found.cpu().numpy()
            for name, values in given.items():
                shares[name] = np.full((len(errors), values.shape[1]), np.nan, dtype=np.float32)
                shares[name][readable] = values.cpu().numpy()
        for row in np.flatnonzero(~np.isfinite(result).all(axis=1)):
            result[row] = np.nan
            errors[row] = errors[row] or "The model's output is not finite."
        yield Predicted(start, result, errors, shares)
        start += len(errors)


def _answers(model: nn.Module, views: Iterable[Mapping[str, Any]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Probabilities (B, C) and shares, name -> (B, n), averaged over the views of a batch."""
    passes = []
    for view in views:
        output = model(**view)
        passes.append((probabilities(output), shares_of(output)))
    mean = torch.stack([found for found, _ in passes]).mean(dim=0)
    shares = {name: torch.stack([given[name] for _, given in passes]).mean(dim=0) for name in passes[0][1]}
    return calibrated(model, mean), shares


def _move(value: Any, device: torch.device, channels_last: bool) -> Any:
    if isinstance(value, dict):
        return {name: x.to(device) for name, x in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if channels_last and value.ndim == 4:
        return value.to(device, memory_format=torch.channels_last)
    return value.to(device)


class PredictionWriter:
    """CSV of predictions: ``id, label, probability, p_<class>..., error``, with ``true_label`` after the id on request.

    A context manager. The rows go to a temporary file, which takes the name ``path`` when all are written.

    Args:
        path: file to write; its folder is made.
        class_names: the C names, in the order of the probabilities.
        true_labels: also write the known labels.
    """

    def __init__(self, path: str | Path, class_names: Sequence[str], *, true_labels: bool = False) -> None:
        self.path = Path(path)
        self.class_names = list(class_names)
        self.true_labels = true_labels
        self._partial = self.path.with_name(f".{self.path.name}.part")

    def __enter__(self) -> PredictionWriter:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._partial.open("w", encoding="utf-8", newline="")
        self._csv = csv.writer(self._file, lineterminator="\n")
        truth = ["true_label"] if self.true_labels else []
        self._csv.writerow(["id", *truth, "label", "probability", *(f"p_{name}" for name in self.class_names), "error"])
        return self

    def write(self, ids: Sequence[Any], predicted: Predicted, true_labels: Sequence[str] | None = None) -> None:
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
        self._file.close()
        if error is None:
            os.replace(self._partial, self.path)
        else:
            self._partial.unlink(missing_ok=True)
