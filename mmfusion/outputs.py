"""Data passed between parts: a tower's ``Features``, a fusion block's ``Fused``, a model's ``FusionOutput``."""

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
        """Copy with some fields replaced."""
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
        mask: (B, N) bool, True for valid tokens; None if all are.
        levels: Pooled vectors of the tower's levels, shallow to deep, each (B, D_i); the last is ``pooled``.
        streams: Separate streams of the tower by name (``global``, ``local``), each (B, D_i).
        gates: Name -> (B, ...), weight of each stream or slice.
        attentions: Name -> (B, heads, Q, K), inside the tower.

    Raises:
        TypeError: ``pooled`` is missing.
    """

    tokens: Tensor | None = None
    pooled: Tensor = None  # type: ignore[assignment]  # required, but second: the field order is public
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
        tokens: (B, N, D) tokens that a pooling head may attend to, or None.
        mask: (B, N) bool for ``tokens``.
        image: (B, D) image side, input of the auxiliary image head. In attention blocks this is the attention output of
            the image query, which also depends on the clinical side (``ibfa``, unless ``auxiliary="own"``).
        text: (B, D) clinical side, input of the auxiliary text head, with the same caveat.
        attentions: Name -> (B, heads, Q, K).
        gates: Name -> (B, ...).
        streams: The first side's streams by name (``global``, ``local``), each (B, D_i), or None.
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
    """Output of a model or of a single head. Fields that do not apply are None.

    Attributes:
        loss: Scalar, the task's default loss of ``logits`` plus ``aux_loss``, if labels were given.
        logits: (B, C).
        image_logits: (B, C) of the auxiliary image head, which classifies ``Fused.image``; depend on the image only
            if ``Fused.image`` does, which is not the case for the published ``ibfa``.
        text_logits: (B, C) of the auxiliary text head, which classifies ``Fused.text``, with the same caveat.
        features: (B, num_features), input of the head.
        attentions: Name -> (B, heads, Q, K).
        gates: Name -> (B, ...).
        router_probs: (B, K) of a mixture-of-experts head.
        aux_loss: Scalar added by every loss, e.g. expert balance.
        log_scales: (B, targets) log standard deviation of each value, for regression with scales.
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


for _class in (Features, Fused):  # so that a single tower or block can be exported
    torch.export.register_dataclass(_class)
