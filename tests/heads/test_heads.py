"""Heads alone."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

import mmfusion


@pytest.mark.parametrize("name", mmfusion.list_components("head"))
def test_every_head_classifies_a_tensor(name):
    torch.manual_seed(0)
    head = mmfusion.create_head(name, in_features=12, num_classes=3).eval()
    x = torch.randn(4, 12)
    logits = head(x).logits
    assert logits.shape == (4, 3)
    assert_close(head(x[[2, 0]]).logits, logits[[2, 0]])


def test_mlp_is_its_formula():
    torch.manual_seed(0)
    head = mmfusion.create_head("mlp", in_features=5, num_classes=3, hidden_features=7).eval()
    x = torch.randn(2, 5)
    hidden = torch.relu(x @ head.mlp.fc1.weight.T + head.mlp.fc1.bias)
    assert_close(head(x).logits, hidden @ head.mlp.fc2.weight.T + head.mlp.fc2.bias)
