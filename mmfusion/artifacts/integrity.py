"""``files.json``: the SHA-256 of every file that loading reads, to detect damage and edits.

It detects changed files but does not authenticate them: whoever can change a file can also change ``files.json``.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmfusion.artifacts.names import CONFIG, FILES, READ, WEIGHTS
from mmfusion.files import sha256, write_json
from mmfusion.untrusted import read_foreign_json

#: Maximum size of ``files.json`` in bytes.
_MOST = 1 << 20

#: Whether edits are accepted; None outside any :func:`edits`.
_accepted: ContextVar[bool | None] = ContextVar("edited files are accepted", default=None)


@contextmanager
def edits(accepted: bool | None) -> Iterator[None]:
    """Context that accepts model folders edited by hand (True), rejects them (False), or changes nothing (None).

    :func:`accept_edits` inside the block is effective until its end.
    """
    token = _accepted.set(bool(_accepted.get()) if accepted is None else accepted)
    try:
        yield
    finally:
        _accepted.reset(token)


def accept_edits() -> None:
    """Accept model folders edited by hand until the end of the enclosing :func:`edits`, if there is one."""
    if _accepted.get() is not None:
        _accepted.set(True)


def refuse_edit(what: str) -> None:
    """Raise ValueError for an edit, or warn if edits are accepted.

    Args:
        what: The file, and the problem.
    """
    if not _accepted.get():
        way = "or accept the edit with --allow_edited (in Python allow_edited=True)"
        raise ValueError(f"{what}; download or save the model again, {way}.")
    warnings.warn(f"{what}; accepted, because edits are allowed.", stacklevel=3)


def digest(path: Path) -> str:
    """SHA-256 of a file, cached for large files while size and time are unchanged."""
    stat = path.stat()
    return _digest(path, stat.st_size, stat.st_mtime_ns, stat.st_ino)


@lru_cache(maxsize=256)
def _digest(path: Path, *_: int) -> str:
    return sha256(path)


def check_weights(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError if the weights do not belong to ``config.json``, even if edits are accepted."""
    path = folder / WEIGHTS
    if config.get("weights_sha256") not in (None, digest(path)):
        what = f"{path} is damaged (not the file that {CONFIG} was written with)"
        raise ValueError(f"{what}; download or save the model again.")


def begin(folder: Path) -> None:
    """Create the folder, and remove its ``files.json`` while its files change."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILES).unlink(missing_ok=True)


def write_files(folder: Path, program: str | None = None) -> None:
    """Write ``files.json``, after all other files of a saved model.

    Args:
        folder: The saved model.
        program: File of an exported model.
    """
    names = [name for name in (*READ, *filter(None, [program])) if (folder / name).is_file()]
    write_json(folder / FILES, {"sha256": {name: digest(folder / name) for name in names}})


def listed(folder: Path) -> Mapping[str, str] | None:
    """File -> SHA-256 from ``files.json``; None without it, as in earlier versions.

    Raises:
        ValueError: It is not such a list.
    """
    path = folder / FILES
    if not path.exists() and not path.is_symlink():
        return None
    found: Any = read_foreign_json(path, _MOST).get("sha256")
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError(f"{path} has no SHA-256 of files (sha256); download or save the model again.")
    if CONFIG not in found:
        raise ValueError(f"{path} does not list {CONFIG}; download or save the model again.")
    return found


def check_files(folder: Path, *names: str) -> None:
    """Check that the files of a saved model are unchanged.

    Args:
        folder: The saved model; without ``files.json`` there is no check.
        names: Files to check; files that did not exist when saving must not exist now.

    Raises:
        ValueError: A file was changed, added or removed, and edits are not accepted; or ``files.json`` is damaged.
    """
    hashes = listed(folder)
    for name in names if hashes is not None else ():
        path, saved = folder / name, (hashes or {}).get(name)
        if not path.is_file():
            if saved is not None:
                refuse_edit(f"{path} is missing, but the model was saved with it ({FILES})")
        elif saved is None:
            refuse_edit(f"{path} was added since the model was saved (it is not in {FILES})")
        elif digest(path) != saved:
            refuse_edit(f"{path} was changed since the model was saved ({FILES})")
