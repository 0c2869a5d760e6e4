"""Every registered architecture, one at a time."""

from __future__ import annotations

import pytest
from zoo import shrunk

import mmfusion


def by_size(names: list[str]) -> list[object]:
    """One parameter per architecture; a larger sibling, the same parts on other encoders, is slow where a family has a
    ``lite0``."""
    smallest = {name.removesuffix("_lite0") for name in names if name.endswith("_lite0")}
    slow = {name for name in names if not name.endswith("_lite0") and name.startswith(tuple(f"{s}_" for s in smallest))}
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names]


@pytest.fixture(params=by_size(mmfusion.list_models()))
def model(request: pytest.FixtureRequest) -> mmfusion.FusionModel:
    """Each registered architecture on tiny towers."""
    return shrunk(request.param)
