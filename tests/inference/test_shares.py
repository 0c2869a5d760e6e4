from __future__ import annotations

import torch

from mmfusion.inference.shares import shares_of
from mmfusion.outputs import FusionOutput


def test_a_wide_gate_counts_by_its_mean_and_a_narrow_one_by_its_values() -> None:
    gates = {"levels": torch.rand(4, 3), "image.0": torch.rand(4, 32).half(), "share": torch.rand(4)}
    shares = shares_of(FusionOutput(logits=torch.zeros(4, 2), gates=gates))
    assert list(shares) == ["levels", "image.0", "share"]
    torch.testing.assert_close(shares["levels"], gates["levels"])
    torch.testing.assert_close(shares["image.0"], gates["image.0"].float().mean(1, keepdim=True))
    torch.testing.assert_close(shares["share"], gates["share"][:, None])


def test_a_model_with_neither_tells_nothing() -> None:
    assert shares_of(FusionOutput(logits=torch.zeros(4, 2))) == {}
