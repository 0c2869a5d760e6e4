"""Files of the Hugging Face Hub: fetched into its cache, or told in one line why they cannot be had.

No heavy library is imported before something is fetched.
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

#: beginnings of a name that stands for a folder, and of one that stands for a repository.
LOCAL, HUB = "local-dir:", "hf-hub:"

LOG_IN = "log in with `hf auth login` and a token from the Hub's settings, or set HF_TOKEN"

#: seconds that the Hub has to answer in, before the cache alone is looked into.
PATIENCE = 3.0


def fetch_files(name: str, patterns: Sequence[str], *, again: bool = False, cached: bool = False) -> Path:
    """The folder of a repository's files: from the cache where they are whole there, else fetched.

    A file appears in the cache when it is whole; a download that broke off goes on the next time. Where the Hub does
    not answer, the cache alone is looked into, without retries.

    Args:
        name: ``hf-hub:org/name``, with an optional ``@revision`` (branch, tag or commit).
        patterns: Names of the files, with wildcards; those that are not there are passed over.
        again: Fetch what is in the cache too.
        cached: Look into the cache alone.

    Raises:
        FileNotFoundError: no such repository or revision, no access to it, or no network and nothing in the cache; the
            message says which, and what to do.
    """
    from huggingface_hub import snapshot_download

    repository, _, revision = name.removeprefix(HUB).partition("@")
    options: dict[str, Any] = {"revision": revision or None, "allow_patterns": list(patterns)}
    options["force_download"] = again
    try:
        return Path(snapshot_download(repository, **options, local_files_only=cached or not answers()))
    except Exception as error:  # the client has an exception for each of a dozen causes
        raise FileNotFoundError(f"{name!r}: {reason_of(error, repository, revision)}") from error


def answers() -> bool:
    """Whether the Hub can be asked: the client itself would go on trying for most of a minute."""
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


#: whether the thread may use the network.
_network = threading.local()


@contextmanager
def no_network() -> Iterator[None]:
    """Within the block, this thread opens no connection and looks up no address: OSError tells who tries."""
    _watch()
    before, _network.closed = getattr(_network, "closed", False), True
    try:
        yield
    finally:
        _network.closed = before


@cache
def _watch() -> None:
    """Have the interpreter ask, once and for all, before it connects; a flag of the Hub's client is every thread's."""

    def refuse(event: str, _: tuple[Any, ...]) -> None:
        asks = event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto")
        if asks and getattr(_network, "closed", False):
            raise OSError("a saved model is built from its folder alone, and this one asked for the network")

    sys.addaudithook(refuse)


def check_answers(wanted: str) -> None:
    """Raise ConnectionError, naming what was wanted, where the Hub does not answer."""
    if not answers():
        raise ConnectionError(f"{wanted} is not in the cache, and the Hub cannot be reached")


def cached_file(repository: str, *names: str, revision: str | None = None) -> Path | None:
    """The first of the named files that the cache has of a repository; None where it has none of them."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    for name in names:
        try:
            found = try_to_load_from_cache(repository, name, revision=revision)
        except HFValidationError:  # no name of a repository: a folder, or a slip of the pen
            return None
        if isinstance(found, str):
            return Path(found)
    return None


def terms(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Under which terms a repository's files are given: ``license`` and ``gated``, None where it cannot be known.

    Args:
        name: ``hf-hub:org/name@revision``; any other name is that of a folder alone.
        folder: Where its files lie; the ``README.md`` there says what the Hub cannot be asked.
    """
    from huggingface_hub import HfApi

    found = _terms_of_card(folder / "README.md") if folder is not None else {}
    if name.startswith(HUB) and answers():
        repository, _, revision = name.removeprefix(HUB).partition("@")
        try:
            info = HfApi().model_info(repository, revision=revision or None, timeout=10)
        except Exception:  # the terms are for the reader of the card; what fetches the files says what is wrong
            return {"license": found.get("license"), "gated": found.get("gated")}
        card: dict[str, Any] = info.card_data.to_dict() if info.card_data is not None else {}
        found = {"license": card.get("license") or found.get("license"), "gated": bool(info.gated)}
    return {"license": found.get("license"), "gated": found.get("gated")}


def _terms_of_card(path: Path) -> dict[str, Any]:
    """What the head of a model card says."""
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
    """The status of the answer that an error tells of."""
    return getattr(getattr(error, "response", None), "status_code", None)


def reason_of(error: Exception, repository: str, revision: str) -> str:
    """One line: what is wrong, and what to do about it."""
    from huggingface_hub import errors

    reasons = {
        errors.HFValidationError: f"{repository!r} is no name of a repository; write org/name.",
        errors.GatedRepoError: f"the repository asks for its terms to be accepted on its page; do so, and {LOG_IN}.",
        errors.RevisionNotFoundError: f"the repository has no revision {revision!r}; leave it out, or name a branch, "
        "tag or commit that is there.",
        errors.RepositoryNotFoundError: f"there is no such repository, or it is private; check the name, or {LOG_IN}.",
    }
    if found := next((reason for kind, reason in reasons.items() if isinstance(error, kind)), None):
        return found
    if status_of(error) in (401, 403):
        return f"the Hub refuses access ({status_of(error)}); {LOG_IN} as one who may."
    if isinstance(error, (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)):
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            return "it is not in the cache, and HF_HUB_OFFLINE is set; unset it once, where there is a network."
        return "it is not in the cache, and the Hub cannot be reached; connect once, or copy its folder (local-dir:)."
    if getattr(error, "errno", None) in FULL:
        return "there is no room left on the disk for the Hub's cache; make some, or set HF_HOME to another disk."
    first = str(error).strip().splitlines()[0] if str(error).strip() else ""
    return f"the Hub did not give it ({type(error).__name__}: {first}); try again."
