"""Rows shared out over the processes that ``torchrun`` started; the first one gets all predictions, in their order."""

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

#: batches that a process computes before it hands them over.
EXCHANGED = 8


@contextmanager
def processes() -> Iterator[None]:
    """Join the processes of ``torchrun``, each on an accelerator of its own; without it nothing happens.

    Raises:
        ConnectionError: Another process has ended before this one; the block's own errors stay.
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
            raise ConnectionError("Another process of this prediction has ended; nothing is written.") from error
        raise
    finally:
        dist.destroy_process_group()


def rank_of_this() -> int:
    """Number of this process among those that have joined; 0 where it is the only one."""
    return dist.get_rank() if dist.is_initialized() else 0


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process go through the block before the others: what it writes is there for them."""
    if rank_of_this():
        dist.barrier()
    yield
    if dist.is_initialized() and not dist.get_rank():
        dist.barrier()


def shared_stream(
    predictor: Predictor, rows: Sequence[Any], *, batch_size: int, **options: Any
) -> Iterator[Prediction]:
    """The predictions of ``predictor.stream``, computed by all processes; only the first gets any.

    The batches are those of one process, dealt out in turns, so that the numbers are the same.
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
    """The rows of every n-th batch of a data set, n the number of processes, beginning with that of this one's rank."""

    def __init__(self, rows: Any, batch_size: int) -> None:
        self.rows, self.collate = rows, rows.collate
        first, step = dist.get_rank() * batch_size, dist.get_world_size() * batch_size
        starts = range(first, len(rows), step)
        self._indices = [i for start in starts for i in range(start, min(start + batch_size, len(rows)))]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Any:
        return self.rows[self._indices[index]]
