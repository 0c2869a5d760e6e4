"""Every registered model compiles to one graph with the same results."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo
from torch.testing import assert_close
from zoo import batch, larger_siblings, shrunk

import mmfusion

NAMES = [name for name in mmfusion.list_models() if not name.startswith("test_")]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in NAMES if name not in larger_siblings(NAMES)])
def test_one_graph(name: str) -> None:
    torch.compiler.reset()
    model = shrunk(name).eval()
    inputs = batch(model, rows=3)
    # torch excludes LSTMs from graphs by default; this is not a graph break of the model's code
    with torch.no_grad(), torch._dynamo.config.patch(allow_rnn=True):
        found = torch.compile(model, backend="eager", fullgraph=True)(**inputs)
        assert_close(found.logits, model(**inputs).logits, rtol=1e-4, atol=1e-5)
