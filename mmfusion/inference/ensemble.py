"""Several models that answer as one: the mean of their calibrated probabilities (Lakshminarayanan et al. 2017)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mmfusion.data import Processor
from mmfusion.inference.stream import Predicted


@dataclass(frozen=True)
class Member:
    """A model and the processor that makes its inputs.

    Attributes:
        name: what messages call it.
        model: a ``FusionModel`` or an ``OnnxModel``.
        processor: the model's.
    """

    name: str
    model: Any
    processor: Processor


class Ensemble:
    """Stands where a model does for :class:`~mmfusion.Predictor` and ``predict_cases``.

    Each member reads the rows with its own processor: image sizes and tokenizers may differ, the classes may not.

    Args:
        members: two at least.

    Attributes:
        members: as given.
        calibration: None; each member has its own.

    Raises:
        ValueError: fewer than two members, or members that differ in their classes or in what a row's images are.
    """

    calibration = None

    def __init__(self, members: Sequence[Member]) -> None:
        if len(members) < 2:
            raise ValueError(f"An ensemble has two models at least, got {len(members)}.")
        first = members[0]
        for other in members[1:]:
            if list(other.processor.labels) != list(first.processor.labels):
                raise ValueError(
                    f"The models of an ensemble have the same classes in the same order: {first.name} has "
                    f"{list(first.processor.labels)}, {other.name} has {list(other.processor.labels)}."
                )
        layouts = {member.model.image_layout: member.name for member in members}
        layouts.pop(None, None)
        if len(layouts) > 1:
            (one, a), (two, b), *_ = layouts.items()
            raise ValueError(f"The models of an ensemble read the same rows: {a} reads {one}, {b} reads {two}.")
        self.members = list(members)


def members_of(model: Any, processor: Processor) -> list[Member]:
    """The members of an ensemble, or the one model as its only member."""
    return model.members if isinstance(model, Ensemble) else [Member("the model", model, processor)]


def mean_of(streams: Sequence[Iterator[Predicted]]) -> Iterator[Predicted]:
    """The mean of several models' predictions of the same rows; of one stream the stream itself.

    A row that one of the models cannot read has that model's error: the mean of the others would be another ensemble.
    Shares of routers and gates are those of one model, and are left out.
    """
    if len(streams) == 1:
        yield from streams[0]
        return
    for parts in zip(*streams, strict=True):
        errors = [next((e for e in row if e is not None), None) for row in zip(*(p.errors for p in parts), strict=True)]
        stacked = np.stack([part.probabilities for part in parts])
        yield Predicted(parts[0].start, stacked.mean(axis=0, dtype=np.float64).astype(np.float32), errors)
