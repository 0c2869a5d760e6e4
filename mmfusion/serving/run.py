"""``mmfusion app``: a local web page that stores nothing."""

import logging
import os
import signal
import socket
import tempfile
import threading
import time
import webbrowser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mmfusion.artifacts.shipped import shipped
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.run import open_predictor
from mmfusion.serving.config import AppConfig

logger = logging.getLogger(__name__)

#: Seconds after which an upload and its results are deleted.
KEPT = 600


@dataclass(frozen=True)
class Stopped:
    """Result of ``mmfusion app`` after it was stopped."""

    address: str

    def summary(self) -> str:
        """That the page is closed and the uploads are deleted."""
        return f"{self.address} is closed; its uploads are deleted"


class Models(Mapping[str, Predictor]):
    """Trained models by their names on the page, loaded on first use.

    Args:
        names: The models, as in :meth:`mmfusion.Predictor.from_pretrained`.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(dict.fromkeys(names))
        self._load = cache(lambda name: open_predictor([name]))

    def __getitem__(self, name: str) -> Predictor:
        if name not in self._names:
            raise KeyError(f"This page has no model {name!r}; it has {', '.join(self._names)}.")
        return self._load(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def app(config: AppConfig) -> Stopped:
    """Serve the page until it is interrupted.

    Raises:
        ImportError: Gradio is not installed.
        ValueError: No model is given, and none is shipped with the package.
        OSError: The port is in use.
    """
    models = Models(config.model or [str(name) for name in shipped()])
    if not models:
        raise ValueError("There is no model to show; choose one with --model.")
    if not config.is_local:
        logger.warning("%s is reachable from other machines, and the page has no password", config.host)
    with (
        tempfile.TemporaryDirectory(prefix="mmfusion-app-") as uploads,
        swept(Path(uploads), KEPT),
        _listening(config.host, config.port) as listener,
    ):
        # Gradio reads these on import
        os.environ |= {"GRADIO_TEMP_DIR": uploads, "GRADIO_ANALYTICS_ENABLED": "False"}
        try:
            from mmfusion.serving.server import server
        except ImportError as error:
            raise ImportError(f"The page needs Gradio ({error}): pip install 'mmfusion[app]'.") from None
        first = next(iter(models))
        print(f"loading {first}")
        _ = models[first]  # loading errors are reported before the page opens
        host, port = listener.getsockname()[:2]
        address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        serve = server(models, config, Path(uploads))
        print(f"{', '.join(models)} on {address} (stop with Ctrl+C)", flush=True)
        if config.open_browser:
            webbrowser.open(address)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):
            serve.run(sockets=[listener])
    return Stopped(address)


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket; OSError with a readable message if that is not possible."""
    try:
        family = socket.getaddrinfo(host, port)[0][0]
        listener = socket.create_server((host, port), family=family)
    except OSError as error:
        raise OSError(f"cannot listen on {host}:{port} ({error.strerror}); choose another --port.") from None
    with listener:
        yield listener


@contextmanager
def swept(folder: Path, age: float, pause: float = 30.0) -> Iterator[None]:
    """Delete old files of a folder while the context is open.

    Args:
        folder: The folder, including subfolders.
        age: Seconds since the last write after which a file is deleted.
        pause: Seconds between two checks.
    """
    stop = threading.Event()

    def sweep() -> None:
        while not stop.wait(pause):
            for path in folder.rglob("*"):
                with suppress(OSError):  # another thread may have deleted it
                    if path.is_file() and time.time() - path.stat().st_mtime > age:
                        path.unlink()

    sweeper = threading.Thread(target=sweep, daemon=True)
    sweeper.start()
    try:
        yield
    finally:
        stop.set()
        sweeper.join()
