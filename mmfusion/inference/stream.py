"""Streaming inference: predictions in row order and bounded memory."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset

from mmfusion.data.table_columns import TableColumns
from mmfusion.hardware import of_any_rows
from mmfusion.inference.familiarity import Familiarity, case_level, tower_features, vectors_of
from mmfusion.inference.rows import ROW_ERRORS
from mmfusion.inference.shares import shares_of
from mmfusion.inference.tta import views_of
from mmfusion.names import one_line
from mmfusion.task import DEFAULT, Task, task_named

#: Modalities sorted by name.
MODALITIES = ("image", "text", "table")


@dataclass(frozen=True)
class Prediction:
    """Predictions for consecutive rows.

    Attributes:
        start: Index of the first row.
        scores: (n, S) float32, uncalibrated, log-probabilities if rows have one class; NaN for rows with an error.
        errors: n texts, None for readable rows.
        inputs: n texts, the modalities of each row joined by ``+``; empty for rows with an error.
        shares: Router and gate values per row, name -> (n, ...), see :func:`~mmfusion.inference.shares.shares_of`; NaN
            for unreadable rows, empty if no row of the batch is readable.
        calibration: Calibration that gives :attr:`probabilities`; None leaves them uncalibrated.
        familiarity: Modality -> (n,) familiarity of each row, NaN if it lacks the modality or is unreadable; empty
            if the model has no detector.
        task: Converts scores to answers.
    """

    start: int
    scores: NDArray[np.float32]
    errors: list[str | None]
    inputs: list[str]
    shares: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None
    familiarity: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    task: Task = field(default_factory=lambda: task_named(DEFAULT))

    @property
    def rows(self) -> slice:
        """Indices of the rows."""
        return slice(self.start, self.start + len(self.errors))

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(n, C), calibrated; for other tasks the answers (n, A)."""
        return self.task.answers(torch.from_numpy(self.scores), self.calibration).numpy()

    @property
    def uncalibrated(self) -> NDArray[np.float32]:
        """(n, C) before calibration."""
        return self.task.uncalibrated(self.scores)


class Guarded(Dataset[Any]):
    """A data set that returns an error message for unreadable rows."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any] | str:
        try:
            return self.rows[index]
        except ROW_ERRORS as error:
            return one_line(error, 500)


def batches(
    rows: Any, collate: Callable[[list[Any]], dict[str, Any]], *, batch_size: int, workers: int = 0
) -> Iterator[tuple[dict[str, Any] | None, list[str | None]]]:
    """Batches of a data set: the readable rows (None without any) and the errors of all rows."""
    together = partial(_collated, collate=collate)
    loader: Any = DataLoader(Guarded(rows), batch_size=batch_size, num_workers=workers, collate_fn=together)
    yield from loader


def _collated(
    items: list[Any], collate: Callable[[list[Any]], dict[str, Any]]
) -> tuple[dict[str, Any] | None, list[str | None]]:
    readable = [item for item in items if not isinstance(item, str)]
    return (collate(readable) if readable else None), [item if isinstance(item, str) else None for item in items]


def predict_rows(
    model: nn.Module,
    dataset: Any,
    collate: Callable[[list[Any]], dict[str, Any]],
    *,
    task: Task,
    calibration: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    tta: bool = False,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    workers: int = 0,
    familiarity: Familiarity | None = None,
    table: TableColumns | None = None,
    refuse_unfamiliar: float | None = None,
) -> Iterator[Prediction]:
    """Predict every row of a data set batch by batch.

    Args:
        model: A ``FusionModel``, which is set to evaluation mode and runs on its device, or an ``OnnxModel``.
        dataset: Sized data set with items for ``collate``; an item that raises one of ``ROW_ERRORS`` becomes the error
            of its row.
        collate: List of items -> keyword tensors (``Processor.collate``).
        task: Task of the model with its labels.
        calibration: As in :class:`~mmfusion.inference.predictor.Predictor`, like ``dtype`` and ``channels_last``.
        batch_size: As in ``Predictor.stream``, like ``tta``, ``workers`` and ``refuse_unfamiliar``.
        familiarity: Detector of unfamiliar cases, or None.
        table: Encoding of the columns, to detect unfamiliar cells.

    Yields:
        One :class:`Prediction` per batch, in order.

    Raises:
        ValueError: ``batch_size`` is below one.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1.")
    weights = next(model.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device
    compiled = getattr(model, "_compiled_call_impl", None) is not None
    start, images = 0, _Formatted(channels_last, compiled)
    model.eval()
    if refuse_unfamiliar is not None and familiarity is None:
        raise ValueError("refuse_unfamiliar: the model was saved without a familiarity detector; train it again.")
    for batch, errors in batches(dataset, collate, batch_size=batch_size, workers=workers):
        readable = np.array([error is None for error in errors])
        result = np.full((len(errors), task.size), np.nan, dtype=np.float32)
        judged = [""] * len(errors)
        shares: dict[str, NDArray[np.float32]] = {}
        familiar: dict[str, NDArray[np.float32]] = {}
        if batch is not None:
            for row, words in zip(np.flatnonzero(readable), inputs_of(batch), strict=False):
                judged[row] = words
            inputs = {name: _move(value, device) for name, value in batch.items() if name != "labels"}
            # in inference mode, views of images would be a second kind of tensor, for which a model is compiled again
            without_gradients = torch.no_grad() if compiled else torch.inference_mode()
            with without_gradients, nullcontext() if dtype is None else torch.autocast(device.type, dtype):
                views = (images.of(view) for view in (views_of(inputs) if tta else [inputs]))
                with tower_features(model) if familiarity is not None else nullcontext(dict) as seen:
                    outputs = [model(**next(views))]
                    features = seen()  # of the unchanged image: in compiled code, the next view replaces them
                outputs += [model(**view) for view in views]
                result = _spread(task.pooled([task.raw(output) for output in outputs]), readable)
                given = [shares_of(output) for output in outputs]
                shares = {n: _spread(torch.stack([s[n] for s in given]).mean(dim=0), readable) for n in given[0]}
                if familiarity is not None:
                    told = familiarity.of(*vectors_of(inputs, features, table))
                    familiar = {m: _spread(torch.from_numpy(each)[:, None], readable)[:, 0] for m, each in told.items()}
        if refuse_unfamiliar is not None and familiar:
            level, unlike = case_level(familiar)
            for row in np.flatnonzero(level < refuse_unfamiliar):
                what = f" ({unlike[row].replace('+', ', ')})" if unlike[row] else ""
                errors[row] = (
                    f"Unlike the training data{what}: familiarity {level[row]:.2g}, below {refuse_unfamiliar:g}."
                )
                result[row] = np.nan
        for row in np.flatnonzero(np.isnan(result).any(axis=1)):
            result[row] = np.nan
            errors[row], judged[row] = errors[row] or "The model's output is not finite.", ""
        yield Prediction(start, result, errors, judged, shares, calibration, familiar, task)
        start += len(errors)


def inputs_of(batch: Mapping[str, Any]) -> list[str]:
    """Modalities of each row of a batch joined by ``+``; empty if the batch has no flags."""
    present = {kind: batch[f"{kind}_present"].tolist() for kind in MODALITIES if f"{kind}_present" in batch}
    rows = zip(*present.values(), strict=True)
    return ["+".join(kind for kind, there in zip(present, row, strict=True) if there) for row in rows]


def _spread(values: torch.Tensor, readable: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Values (n, ...) of the readable rows placed among all rows, NaN for the others."""
    whole = np.full((len(readable), values.shape[1]), np.nan, dtype=np.float32)
    whole[readable] = values.cpu().numpy()
    return whole


def _move(value: Any, device: torch.device) -> Any:
    if isinstance(value, dict):
        return {name: x.to(device) for name, x in value.items()}
    return value.to(device) if isinstance(value, torch.Tensor) else value


class _Formatted:
    """Batches in the memory format of the model.

    A compiled model is compiled again for each other memory format of images and, unless it is told that they vary, for
    each other number of rows. Batches in channels_last share a buffer, since allocating one costs more than the copy.
    """

    def __init__(self, channels_last: bool, compiled: bool) -> None:
        self._channels_last, self._compiled = channels_last, compiled
        self._room: dict[str, torch.Tensor] = {}

    def of(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """The batch with its images (B, C, H, W) in one memory format, whatever made them."""
        found = {n: self._laid(n, x) if isinstance(x, torch.Tensor) and x.ndim == 4 else x for n, x in batch.items()}
        if self._compiled:
            of_any_rows(found)
        return found

    def _laid(self, name: str, images: torch.Tensor) -> torch.Tensor:
        if not self._channels_last:
            return images.contiguous()
        room = self._room.get(name)
        if room is None or len(room) < len(images) or room.shape[1:] != images.shape[1:]:
            room = self._room[name] = torch.empty_like(images, memory_format=torch.channels_last)
        return room[: len(images)].copy_(images)


def mean_of(streams: Sequence[Iterator[Prediction]]) -> Iterator[Prediction]:
    """Mean of several models' calibrated predictions of the same rows; a single stream is returned unchanged.

    A row that one model cannot read gets that model's error, since a mean of the others would be another ensemble.
    Router and gate values belong to one model and are omitted.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    for parts in zip(*streams, strict=True):
        errors = [next((e for e in row if e is not None), None) for row in zip(*(p.errors for p in parts), strict=True)]
        first = parts[0]
        scores, calibration = first.task.joined([part.probabilities for part in parts])
        yield Prediction(first.start, scores, errors, _joined(parts, errors), {}, calibration, task=first.task)


def _joined(parts: Sequence[Prediction], errors: Sequence[str | None]) -> list[str]:
    """Modalities of each row used by any of the models."""
    rows = zip(*(part.inputs for part in parts), strict=True)
    found = [{kind for words in row for kind in words.split("+")} for row in rows]
    each = ["+".join(kind for kind in MODALITIES if kind in kinds) for kinds in found]
    return [words if error is None else "" for words, error in zip(each, errors, strict=True)]
