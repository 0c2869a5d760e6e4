"""Processes that use a local Hub server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hub_server import Hub

#: a folder whose ``sitecustomize`` removes the waiting times between the client's retries.
NO_WAITS = str(Path(__file__).with_name("no_waits"))

Completed = subprocess.CompletedProcess[str]


class Forks:
    """A process with the libraries imported, which forks for each call (``forked.py``)."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self.out, self.err = folder / "stdout", folder / "stderr"
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("forked.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdout is not None and self.process.stdout.readline() == "ready\n"

    def run(self, arguments: tuple[str, ...], environment: dict[str, str]) -> Completed:
        """Like :func:`subprocess.run`, of one text (code) or of several (a command)."""
        what = {"code": textwrap.dedent(arguments[0])} if len(arguments) == 1 else {"arguments": list(arguments)}
        request = {**what, "environment": environment, "stdout": str(self.out), "stderr": str(self.err)}
        assert self.process.stdin is not None and self.process.stdout is not None
        print(json.dumps(request), file=self.process.stdin, flush=True)
        status = int(self.process.stdout.readline())
        return subprocess.CompletedProcess(arguments, status, self.out.read_text(), self.err.read_text())

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(server: Hub) -> Hub:
    """An empty server."""
    for state in (server.repositories, server.uploads, server.broken, server.flipped, server.requests_seen):
        state.clear()
    server.dropping = False
    return server


@pytest.fixture(scope="module")
def environment(server: Hub, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables of a process that uses the server (its address is read once, at import)."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment |= {"HF_ENDPOINT": server.address, "HF_HUB_DISABLE_XET": "1"}
    environment["HF_HOME"] = str(tmp_path_factory.mktemp("hf") / "cache")
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [NO_WAITS, environment.get("PYTHONPATH")]))
    return environment


@pytest.fixture(scope="module")
def forks(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    forks = Forks(environment, tmp_path_factory.mktemp("forks"))
    yield forks
    forks.close()


@pytest.fixture
def client(forks: Forks, environment: dict[str, str], tmp_path: Path) -> Callable[..., Completed]:
    """Run Python code or a command in a process that uses the server, with an empty cache at first.

    ``more`` are variables that are read at import: with them, or another cache, the process is not a fork.
    """
    shutil.rmtree(environment["HF_HOME"], ignore_errors=True)

    def run(*arguments: str, token: str | None = None, cache: str | None = None, **more: str) -> Completed:
        own = {} if token is None else {"HF_TOKEN": token}
        if cache is None and not more:
            return forks.run(arguments, own)
        own |= more | ({} if cache is None else {"HF_HOME": str(tmp_path / cache)})
        command = ["-c", textwrap.dedent(arguments[0])] if len(arguments) == 1 else ["-m", "mmfusion", *arguments]
        return subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=environment | own, timeout=120
        )

    return run
