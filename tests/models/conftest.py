"""Every registered architecture, one at a time."""

from __future__ import annotations

import pytest
from zoo import shrunk

import mmfusion


@pytest.fixture(params=mmfusion.list_models())
def model(request: pytest.FixtureRequest) -> mmfusion.FusionModel:
    """Each registered architecture on tiny towers."""
    return shrunk(request.param)
