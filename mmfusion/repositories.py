"""Downloads from the Hugging Face Hub into its cache, with one-line errors.

No heavy library is imported before a download.
"""

import os
import socket
import sys
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from mmfusion.files import FULL

#: Prefixes of names of folders and of repositories.
LOCAL, HUB = "local-dir:", "hf-hub:"

LOG_IN = "log in with `hf auth login` and a token from the Hub's settings, or set HF_TOKEN"

#: Seconds to wait for the Hub before using only the cache.
PATIENCE = 3.0


def fetch_files(name: str, patterns: Sequence[str], *, again: bool = False, cached: bool = False) -> Path:
    """Return the folder of a repository's files, from the cache if complete, else after downloading them.

    Files appear in the cache when complete; an interrupted download resumes. If the Hub does not respond, only the
    cache is used, without retries.

    Args:
        name: ``hf-hub:org/name``, with an optional ``@revision`` (branch, tag or commit).
        patterns: Names of the files, with wildcards; missing ones are ignored.
        again: Download cached files too.
        cached: Use only the cache.

    Raises:
        FileNotFoundError: The repository or revision does not exist or is inaccessible, or there is no network and
            nothing in the cache; the message gives the fix.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.removeprefix(HUB).partition("@")
    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": list(patterns)}
    options["force_download"] = again
    try:
        return Path(snapshot_download(repository, **options, local_files_only=cached or not answers()))
    except Exception as error:  # the client has a dozen exception types
        raise FileNotFoundError(f"{name!r}: {reason_of(error, repository, revision)}") from error


def answers() -> bool:
    """Whether the Hub responds quickly; the client itself would retry for most of a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    address = urlsplit(constants.ENDPOINT)
    if address.hostname is None or (
        address.scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(address.hostname)
    ):
        return True  # the proxy decides
    try:
        port = address.port or (80 if address.scheme == "http" else 443)
        socket.create_connection((address.hostname, port), timeout=PATIENCE).close()
    except OSError:
        return False
    return True


#: Whether the thread may use the network.
_network = threading.local()


@contextmanager
def no_network() -> Iterator[None]:
    """Context in which this thread cannot open connections or resolve addresses; attempts raise OSError."""
    _watch()
    before, _network.closed = getattr(_network, "closed", False), True
    try:
        yield
    finally:
        _network.closed = before


@cache
def _watch() -> None:
    """Install an audit hook for connections, once; a flag of the Hub's client would affect all threads."""

    def refuse(event: str, _: tuple[Any, ...]) -> None:
        asks = event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
        if asks and getattr(_network, "closed", False):
            raise OSError("a saved model must be built from its folder, but this one tried to use the network")

    sys.addaudithook(refuse)


def check_answers(wanted: str) -> None:
    """Raise ConnectionError, naming the file, if the Hub does not respond."""
    if not answers():
        raise ConnectionError(f"{wanted} is not in the cache, and the Hub is unreachable")


def cached_file(repository: str, *names: str, revision: str | None = None) -> Path | None:
    """The first of the named files that is cached for a repository, or None."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in names:
        try:
            found = try_to_load_from_cache(repository, name, revision=revision)
        except HFValidationError:  # not a repository name: a folder, or a typo
            return None
        if isinstance(found, str):
            return Path(found)
    return None


def terms(name: str, folder: Path | None = None) -> dict[str, Any]:
    """License terms of a repository's files: ``license`` and ``gated``, None if unknown.

    Args:
        name: ``hf-hub:org/name@revision``; any other name is a folder.
        folder: Folder of the files, whose ``README.md`` is used if the Hub is unavailable.
    """
    from huggingface_hub import HfApi

    found = _terms_of_card(folder / "README.md") if folder is not None else {}
    if name.startswith(HUB) and answers():
        repository, _, revision = name.removeprefix(HUB).partition("@")
        try:
            info = HfApi().model_info(repository, revision=revision or None, timeout=10)
        except Exception:  # the terms are informative; errors are raised when downloading files
            return {"license": found.get("license"), "gated": found.get("gated")}
        card: dict[str, Any] = info.card_data.to_dict() if info.card_data is not None else {}
        found = {"license": card.get("license") or found.get("license"), "gated": bool(info.gated)}
    return {"license": found.get("license"), "gated": found.get("gated")}


def _terms_of_card(path: Path) -> dict[str, Any]:
    """Terms in the YAML header of a model card."""
    import yaml

    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    if not lines or lines[0].strip() != "---" or "---" not in (rest := [line.strip() for line in lines[1:]]):
        return {}
    try:
        head = yaml.safe_load("\n".join(lines[1 : rest.index("---") + 1]))
    except yaml.YAMLError:
        return {}
    if not isinstance(head, dict):
        return {}
    asks = any(str(key).startswith("extra_gated") for key in head)
    return {"license": head.get("license_name") or head.get("license"), "gated": True if asks else None}


def status_of(error: Exception) -> int | None:
    """HTTP status of an error, if any."""
    return getattr(getattr(error, "response", None), "status_code", None)


def reason_of(error: Exception, repository: str, revision: str) -> str:
    """Error message in one line with the fix."""
    from huggingface_hub import errors

    reasons = {
        errors.HFValidationError: f"{repository!r} is not a repository name; write org/name.",
        errors.GatedRepoError: f"the repository is gated; accept its terms on its page, and {LOG_IN}.",
        errors.RevisionNotFoundError: f"the repository has no revision {revision!r}; remove it, or use an existing "
        "branch, tag or commit.",
        errors.RepositoryNotFoundError: f"the repository does not exist or is private; check the name, or {LOG_IN}.",
    }
    if found := next((reason for kind, reason in reasons.items() if isinstance(error, kind)), None):
        return found
    if status_of(error) in (401, 403):
        return f"access denied (HTTP {status_of(error)}); {LOG_IN} with an account that has access."
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            return "it is not in the cache, and HF_HUB_OFFLINE is set; unset it once with a network connection."
        return "it is not in the cache, and the Hub is unreachable; connect once, or copy its folder (local-dir:)."
    if getattr(error, "errno", None) in FULL:
        return "the disk is full, and the Hub's cache needs space; free some, or set HF_HOME to another disk."
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"download failed ({type(error).__name__}: {first}); try again."
