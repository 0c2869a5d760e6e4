"""Calibrated probabilities from logits: prior correction and temperature."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def class_probabilities(logits: Tensor, calibration: Mapping[str, Any] | None = None) -> Tensor:
    """``softmax((logits + s log pi) / T)`` in float32, (B, C).

    For a model updated for another site, ``softmax(a log p + b)`` of these.

    Args:
        logits: (B, C) logits or log-probabilities.
        calibration: Entry ``calibration`` of a saved model, with the ``temperature`` T and, if a part of the prior is
            restored, its strength s (``prior_strength``) and log pi (``log_prior``, C numbers); an ``update`` has a
            and b (``slope`` and ``intercept``, C numbers each). None means T = 1 and s = 0.
    """
    logits = logits.float()
    if calibration is None:
        return logits.softmax(dim=-1)
    if strength := calibration.get("prior_strength"):
        logits = logits + strength * logits.new_tensor(calibration["log_prior"])
    logits = logits / calibration["temperature"]
    if update := calibration.get("update"):
        slope, intercept = (logits.new_tensor(update[name]) for name in ("slope", "intercept"))
        logits = slope * logits.log_softmax(dim=-1) + intercept
    return logits.softmax(dim=-1)
