"""Temperature: from logits to the probabilities that a calibrated model gives."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def class_probabilities(logits: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
    """``softmax(logits / T)`` in float32, (B, C).

    Args:
        logits: (B, C), or log-probabilities, which are logits too.
        calibration: Entry ``calibration`` of a saved model, with the ``temperature`` T; None takes 1.
    """
    logits = logits.float()
    return (logits if calibration is None else logits / calibration["temperature"]).softmax(dim=-1)
