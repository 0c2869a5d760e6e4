"""Setup of all tests: one thread, because models are tiny and the machine may be busy, and no network."""

from __future__ import annotations

import csv
import gc
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ["MMFUSION_CACHE"] = tempfile.mkdtemp(prefix="mmfusion-cache-")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start

import torch

torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options for the number of fuzzed cases."""
    parser.addoption("--mutants", type=int, default=None, help="damaged files of each kind that the fuzzers try")


def pytest_collection_finish() -> None:
    """Freeze the objects left by imports, so that the garbage collector skips them."""
    gc.collect()
    gc.freeze()


#: folders of tests that check figures.
DRAWN = ("evaluation", "explanation")


@pytest.fixture(autouse=True)
def figures_are_not_rendered(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Create figures, but write one pixel: rendering took half of the time of a training run."""
    if request.path.parent.name not in DRAWN:
        monkeypatch.setattr(Figure, "savefig", lambda figure, path, **_: Image.new("RGB", (1, 1)).save(path))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections and address lookups raise an error."""

    def closed(*args: object, **kwargs: object) -> None:
        raise AssertionError("the network was touched")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, closed)
    monkeypatch.setattr(socket, "getaddrinfo", closed)


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training, 7 validation and 6 test rows of three classes, distinguished by color and by a word."""
    root = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(0)
    rows = []
    for i, split in enumerate(["train"] * 24 + ["val"] * 7 + ["test"] * 6):
        pixels = rng.integers(0, 150, (32, 32, 3))
        pixels[..., i % 3] += 60
        Image.fromarray(pixels.astype(np.uint8)).save(root / f"case{i}.png")
        colour = ["red", "green", "blue"][i % 3]
        text = f"a {colour} spot, patient of {rng.integers(20, 90)} years" if i % 5 else ""
        rows.append({"image": f"case{i}.png", "text": text, "label": "abc"[i % 3], "split": split})
    with (root / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return root


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="browser tests need selenium")
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("browser tests need chromium and chromedriver on the PATH")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "no-first-run"):
        options.add_argument(f"--{flag}")
    for flag in ("disable-background-networking", "disable-component-update", "disable-sync"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    try:
        opened = webdriver.Chrome(options=options, service=Service(driver))
    except WebDriverException as error:
        pytest.skip(f"the browser does not start here: {str(error).splitlines()[0]}")
    yield opened
    opened.quit()


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Graphs passed to `Module.compile`, which run uncompiled."""
    import torch

    found: list[Any] = []

    def backend(graph: Any, _: Any) -> Any:
        found.append(graph)
        return graph.forward

    compiled = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled(module, backend=backend, fullgraph=True))
    torch.compiler.reset()
    yield found
    torch.compiler.reset()
