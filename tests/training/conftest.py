from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny_runs import run_config, without_plots

from mmfusion.training import CardConfig, RunConfig, train


@pytest.fixture
def make_config(toy: Path, tmp_path: Path) -> Callable[..., RunConfig]:
    """:func:`run_config` on the toy data, by the name of its folder."""
    return lambda name="run", *args, **kwargs: run_config(toy, tmp_path / name, *args, **kwargs)


@pytest.fixture(autouse=True)
def few_plots(request: pytest.FixtureRequest) -> Iterator[None]:
    """Omit plots, which take longer than such small runs; one test checks them."""
    if request.node.name == "test_a_run_leaves_everything_in_its_folder":
        yield
        return
    with without_plots():
        yield


@pytest.fixture(scope="session")
def trained(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A finished run of one epoch, which tests may read and copy but not change."""
    config = run_config(toy, tmp_path_factory.mktemp("trained") / "first", "plain", epochs=1, precision="fp32")
    config.card = CardConfig(dataset="Toy", license="cc-by-nc-4.0")
    with without_plots():
        train(config)
    return config
