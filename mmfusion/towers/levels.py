"""Feature levels between a tower's two halves, ``encode`` (the backbone) and ``assemble`` (what is trained on it)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor


def numbered(levels: Sequence[Tensor] | None) -> dict[str, Tensor]:
    """Levels by name, ``level_0`` first; the last one, which is the pooled vector, is left out."""
    return {f"level_{i}": level for i, level in enumerate((levels or ())[:-1])}


def levels_of(encoded: Mapping[str, Tensor], pooled: Tensor, count: int) -> tuple[Tensor, ...] | None:
    """The ``count`` levels again, the pooled vector last; None where there are none."""
    return (*(encoded[f"level_{i}"] for i in range(count - 1)), pooled) if count else None
