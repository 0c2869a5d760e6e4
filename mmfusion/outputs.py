"""What flows between the parts: a tower's ``Features``, a fusion block's ``Fused``, a model's ``FusionOutput``."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers.utils import ModelOutput


@dataclass
class Features(ModelOutput):
    """One modality as its tower sees it.

    Attributes:
        tokens: (B, N, D) tokens: map positions, text tokens, slices or views.
        pooled: (B, D) one vector per sample.
        mask: (B, N) bool, True where a token is real; None when all are.
        levels: pooled vectors of the tower's levels, shallow to deep, each (B, D_i); the last is ``pooled``.
        streams: what a tower saw separately, by name (``global``, ``local``), each (B, D_i).
        gates: name -> (B, ...), how much each stream or slice counted.
        attentions: name -> (B, heads, Q, K), inside the tower.
    """

    tokens: Tensor | None = None
    pooled: Tensor | None = None
    mask: Tensor | None = None
    levels: tuple[Tensor, ...] | None = None
    streams: dict[str, Tensor] | None = None
    gates: dict[str, Tensor] | None = None
    attentions: dict[str, Tensor] | None = None


@dataclass
class Fused(ModelOutput):
    """Both modalities after a fusion block; what a head classifies.

    Attributes:
        pooled: (B, num_features).
        tokens: (B, N, D) tokens that a pooling head may attend to; None when the block makes none.
        mask: (B, N) bool for ``tokens``.
        image: (B, D) the image side as the auxiliary image head reads it.
        text: (B, D) the text side as the auxiliary text head reads it.
        attentions: name -> (B, heads, Q, K).
        gates: name -> (B, ...).
        streams: the image tower's streams by name (``global``, ``local``), each (B, D_i); None where it has none.
    """

    pooled: Tensor | None = None
    tokens: Tensor | None = None
    mask: Tensor | None = None
    image: Tensor | None = None
    text: Tensor | None = None
    attentions: dict[str, Tensor] | None = None
    gates: dict[str, Tensor] | None = None
    streams: dict[str, Tensor] | None = None


@dataclass
class FusionOutput(ModelOutput):
    """What a model (or a head on its own) returns. A field is None where the model has no such thing.

    Attributes:
        logits: (B, C).
        image_logits: (B, C) of the auxiliary image-only head.
        text_logits: (B, C) of the auxiliary text-only head.
        features: (B, num_features), what the head classifies.
        attentions: name -> (B, heads, Q, K).
        gates: name -> (B, ...).
        router_probs: (B, K) of a mixture-of-experts head.
        aux_loss: scalar that every loss adds, e.g. expert balance.
    """

    logits: Tensor | None = None
    image_logits: Tensor | None = None
    text_logits: Tensor | None = None
    features: Tensor | None = None
    attentions: dict[str, Tensor] | None = None
    gates: dict[str, Tensor] | None = None
    router_probs: Tensor | None = None
    aux_loss: Tensor | None = None
