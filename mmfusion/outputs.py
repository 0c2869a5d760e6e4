"""What flows between the parts: a tower's ``Features``, a fusion block's ``Fused``, a model's ``FusionOutput``."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch.export
from torch import Tensor
from transformers.utils import ModelOutput

Self = TypeVar("Self", bound="_Tensors")


class _Tensors:
    """Base of dataclasses whose fields hold tensors, or tuples or dicts of tensors."""

    def map(self: Self, function: Callable[[Tensor], Tensor]) -> Self:
        """Apply a function to every tensor."""
        fields = {f.name: _mapped(getattr(self, f.name), function) for f in dataclasses.fields(cast(Any, self))}
        return type(self)(**fields)

    def replace(self: Self, **changes: Any) -> Self:
        """Copy with some fields exchanged."""
        return dataclasses.replace(cast(Any, self), **changes)


def _mapped(value: Any, function: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, dict):
        return {name: _mapped(item, function) for name, item in value.items()}
    return None if value is None else tuple(_mapped(item, function) for item in value)


@dataclass
class Features(_Tensors):
    """Features of one modality, as a tower returns them, or of one side. Only ``pooled`` is required.

    Attributes:
        tokens: (B, N, D) tokens: map positions, text tokens, slices or views.
        pooled: (B, D) one vector per sample.
        mask: (B, N) bool, True where a token is real; None when all are.
        levels: Pooled vectors of the tower's levels, shallow to deep, each (B, D_i); the last is ``pooled``.
        streams: Streams that the tower keeps apart, by name (``global``, ``local``), each (B, D_i).
        gates: name -> (B, ...), weight of each stream or slice.
        attentions: name -> (B, heads, Q, K), inside the tower.

    Raises:
        TypeError: ``pooled`` is missing.
    """

    tokens: Tensor | None = None
    pooled: Tensor = None  # type: ignore[assignment]  # required, yet second: the order of the fields is public
    mask: Tensor | None = None
    levels: tuple[Tensor, ...] | None = None
    streams: dict[str, Tensor] | None = None
    gates: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if self.pooled is None:
            raise TypeError("Features need pooled, one vector per sample (B, D).")


@dataclass
class Fused(_Tensors):
    """Output of a fusion block, which the head classifies. Only ``pooled`` is required.

    Attributes:
        pooled: (B, num_features).
        tokens: (B, N, D) tokens that a pooling head may attend to; None when the block makes none.
        mask: (B, N) bool for ``tokens``.
        image: (B, D) the image side, input of the auxiliary image head. Blocks by attention give what the image query
            attended to, in which the clinical side takes part too (``ibfa``, unless ``auxiliary="own"``).
        text: (B, D) the clinical side, input of the auxiliary text head; likewise.
        attentions: name -> (B, heads, Q, K).
        gates: name -> (B, ...).
        streams: The first side's streams by name (``global``, ``local``), each (B, D_i); None where it has none.
    """

    pooled: Tensor
    tokens: Tensor | None = None
    mask: Tensor | None = None
    image: Tensor | None = None
    text: Tensor | None = None
    attentions: dict[str, Tensor] | None = None
    gates: dict[str, Tensor] | None = None
    streams: dict[str, Tensor] | None = None


@dataclass
class FusionOutput(ModelOutput):
    """Output of a model, or of a head on its own. A field is None where the model has no such thing.

    Attributes:
        loss: Scalar, the plain loss of ``logits`` plus ``aux_loss``, where the model was given labels.
        logits: (B, C).
        image_logits: (B, C) of the auxiliary image head, which classifies ``Fused.image``: of the image alone only
            where the block gives the image alone. Of the published ``ibfa`` they are those of the image query.
        text_logits: (B, C) of the auxiliary text head, which classifies ``Fused.text``; likewise.
        features: (B, num_features), what the head classifies.
        attentions: name -> (B, heads, Q, K).
        gates: name -> (B, ...).
        router_probs: (B, K) of a mixture-of-experts head.
        aux_loss: Scalar that every loss adds, e.g. expert balance.
        log_scales: (B, targets) logarithm of the standard deviation of each value, of a regression that gives one.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    image_logits: Tensor | None = None
    text_logits: Tensor | None = None
    features: Tensor | None = None
    attentions: dict[str, Tensor] | None = None
    gates: dict[str, Tensor] | None = None
    router_probs: Tensor | None = None
    aux_loss: Tensor | None = None
    log_scales: Tensor | None = None


for _class in (Features, Fused):  # so that a tower or a block alone is exported too
    torch.export.register_dataclass(_class)
