"""Parametrization over all registered architectures."""

from __future__ import annotations

import pytest
from zoo import larger_siblings, shrunk

import mmfusion


def by_size(names: list[str]) -> list[object]:
    """One parameter per architecture; larger variants are marked slow."""
    slow = larger_siblings(names)
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names]


@pytest.fixture(params=by_size(mmfusion.list_models()))
def model(request: pytest.FixtureRequest) -> mmfusion.FusionModel:
    """Each registered architecture on tiny towers."""
    return shrunk(request.param)
