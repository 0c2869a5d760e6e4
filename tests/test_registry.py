"""The registry by itself."""

from __future__ import annotations

import pytest

from mmfusion import registry
from mmfusion.names import natural_key


def test_natural_order():
    assert sorted(["r101", "r18", "r50", "a2"], key=natural_key) == ["a2", "r18", "r50", "r101"]


def test_the_same_part_may_be_registered_again():
    def part() -> None: ...

    try:
        assert registry.register("loss", "again")(part) is part
        assert registry.register("loss", "again")(part) is part
    finally:
        registry._parts["loss"].pop("again")


def test_unknown_names_without_a_near_one_list_all():
    with pytest.raises(ValueError, match=r"known: .*ce"):
        registry.get("loss", "zzzzzz")
