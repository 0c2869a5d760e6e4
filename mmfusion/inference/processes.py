"""Multi-process prediction under ``torchrun``; the first process receives all predictions in order."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch.utils.data import Dataset

from mmfusion.inference.predictor import Predictor
from mmfusion.inference.stream import Prediction

#: Number of batches that a process computes between transfers.
EXCHANGED = 8


@contextmanager
def processes() -> Iterator[None]:
    """Initialize the process group of ``torchrun``, with one accelerator per process; no effect without it.

    Raises:
        ConnectionError: Another process ended early; errors of the block itself are raised unchanged.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(int(os.environ["LOCAL_RANK"]) % torch.accelerator.device_count())
    dist.init_process_group("gloo")
    try:
        yield
        dist.barrier()
    except RuntimeError as error:
        if "closed by peer" in str(error) or "reset by peer" in str(error):
            raise ConnectionError("Another process of this prediction has ended; nothing was written.") from error
        raise
    finally:
        dist.destroy_process_group()


def rank_of_this() -> int:
    """Rank of this process; 0 if it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def first_alone() -> Iterator[None]:
    """Run the block in the first process before the others, which then find what it wrote."""
    if rank_of_this():
        dist.barrier()
    yield
    if dist.is_initialized() and not dist.get_rank():
        dist.barrier()


def shared_stream(
    predictor: Predictor, rows: Sequence[Any], *, batch_size: int, **options: Any
) -> Iterator[Prediction]:
    """Predictions of ``predictor.stream``, computed by all processes; only the first receives them.

    Batches are the same as in a single process and dealt out in turns, so the numbers are the same.
    """
    if not dist.is_initialized():
        yield from predictor.stream(rows, batch_size=batch_size, **options)
        return
    rank, world = dist.get_rank(), dist.get_world_size()
    own = predictor.stream([Dealt(each, batch_size) for each in rows], batch_size=batch_size, **options)
    for first in range(0, len(rows[0]), batch_size * world * EXCHANGED):
        starts = range(first + rank * batch_size, len(rows[0]), batch_size * world)
        mine = [replace(part, start=start) for start, part in zip(starts, islice(own, EXCHANGED), strict=False)]
        found: list[Any] | None = None if rank else [None] * world
        dist.gather_object(mine, found)
        for turn in range(EXCHANGED if found else 0):
            yield from (parts[turn] for parts in found or () if turn < len(parts))


class Dealt(Dataset[Any]):
    """Every n-th batch of a data set, for n processes, starting with this process's rank."""

    def __init__(self, rows: Any, batch_size: int) -> None:
        self.rows, self.collate = rows, rows.collate
        first, step = dist.get_rank() * batch_size, dist.get_world_size() * batch_size
        starts = range(first, len(rows), step)
        self._indices = [i for start in starts for i in range(start, min(start + batch_size, len(rows)))]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        return self.rows[self._indices[index]]
