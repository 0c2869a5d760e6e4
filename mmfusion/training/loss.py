"""The loss that a run is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmfusion import registry
from mmfusion.data import CaseTable
from mmfusion.models import create_loss
from mmfusion.training.config import TrainConfig


def build_loss(config: TrainConfig, class_counts: Sequence[int]) -> Any:
    """The loss; one that takes ``class_counts`` gets these, unless ``loss_args`` has them.

    Raises:
        ValueError: unknown loss, or a value out of range.
        TypeError: a keyword that the loss does not take.
    """
    counts = {"class_counts": list(class_counts)}
    offered = {name: x for name, x in counts.items() if name in registry.keywords(registry.get("loss", config.loss))}
    return create_loss(config.loss, **(offered | config.loss_args))


def class_counts(cases: CaseTable) -> list[int]:
    """Number of training rows of each class, in the order of the labels."""
    counts = cases.select("train").frame["label"].value_counts()
    return [int(counts.get(label, 0)) for label in cases.labels]


def needs_aux_heads(loss: Any) -> bool:
    """Whether a loss reads ``image_logits`` and ``text_logits``; a plain module of a user's own need not say so."""
    return bool(getattr(loss, "needs_auxiliary_heads", False))
