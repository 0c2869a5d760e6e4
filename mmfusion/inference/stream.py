"""Streaming inference: rows in, probabilities out, in the order of the rows and in bounded memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from mmfusion.data.processor import NOT_INPUTS
from mmfusion.inference.rows import ROW_ERRORS, reason_of
from mmfusion.inference.shares import shares_of
from mmfusion.inference.temperature import class_probabilities
from mmfusion.inference.tta import mean_log_probabilities, views_of


@dataclass(frozen=True)
class Prediction:
    """What a model says about consecutive rows.

    Attributes:
        start: Position of the first row.
        log_probabilities: (n, C) float32, not calibrated; a row with an error holds NaN.
        errors: n texts, None where the row could be read.
        shares: What router and gates gave each row, name -> (n, ...), as :func:`~mmfusion.inference.shares.shares_of`
            names them; NaN in a row that could not be read, and nothing where no row of the batch could.
        calibration: The model's, whose ``temperature`` makes :attr:`probabilities`; None leaves them as they are.
    """

    start: int
    log_probabilities: NDArray[np.float32]
    errors: list[str | None]
    shares: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    calibration: Mapping[str, Any] | None = None

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """(n, C), calibrated."""
        return class_probabilities(torch.from_numpy(self.log_probabilities), self.calibration).numpy()

    @property
    def uncalibrated(self) -> NDArray[np.float32]:
        """(n, C), at temperature 1."""
        return np.exp(self.log_probabilities)


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
            return reason_of(error)


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
    calibration: Mapping[str, Any] | None = None,
    batch_size: int = 64,
    tta: bool = False,
    dtype: torch.dtype | None = None,
    channels_last: bool = False,
    workers: int = 0,
) -> Iterator[Prediction]:
    """Predict every row of a data set, batch by batch.

    Args:
        model: A ``FusionModel``; it is put in evaluation mode, and runs where its weights are. Or an ``OnnxModel``.
        dataset: Anything with a length whose items are what ``collate`` takes; an item that cannot be read raises
            ``ValueError`` or ``OSError``, which becomes the row's error.
        collate: List of items -> keyword tensors (``Processor.collate``).
        num_classes: C.
        calibration: The model's calibration, which the predictions carry.
        batch_size: Rows per step.
        tta: Average over test-time augmentations.
        dtype: Autocast to this type, e.g. ``torch.bfloat16``; None computes in the weights' own.
        channels_last: Memory format of the images.
        workers: Loader processes.

    Yields:
        One :class:`Prediction` per batch, in order.

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
        for row in np.flatnonzero(np.isnan(result).any(axis=1)):
            result[row] = np.nan
            errors[row] = errors[row] or "The model's output is not finite."
        yield Prediction(start, result, errors, shares, calibration)
        start += len(errors)


def _answers(model: nn.Module, views: Iterable[Mapping[str, Any]]) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities (B, C) and shares, name -> (B, n), averaged over the views of a batch."""
    outputs = [model(**view) for view in views]
    shares = [shares_of(output) for output in outputs]
    mean = {name: torch.stack([each[name] for each in shares]).mean(dim=0) for name in shares[0]}
    return mean_log_probabilities([output.logits for output in outputs]), mean


def _move(value: Any, device: torch.device, channels_last: bool) -> Any:
    if isinstance(value, dict):
        return {name: x.to(device) for name, x in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    if channels_last and value.ndim == 4:
        return value.to(device, memory_format=torch.channels_last)
    return value.to(device)
