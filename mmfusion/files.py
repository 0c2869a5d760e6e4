"""Atomic writing of files and folders, locks, and hashes."""

import csv
import errno
import glob
import hashlib
import inspect
import io
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TextIO, TypeVar

from mmfusion.names import one_line

logger = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

#: Error handler for lone surrogates, which UTF-8 does not have; JSON reads them back.
_ESCAPED = "backslashreplace"
#: Errors of a full disk.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: Number of characters of a file name kept in its temporary name.
_STEM = 100


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(values: Any) -> str:
    """16-character hash of plain values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def cache_folder(name: str) -> Path:
    """A folder in the user's cache: in ``MMFUSION_CACHE``, or ``mmfusion`` in the cache folder of the account."""
    own = os.environ.get("MMFUSION_CACHE")
    home = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmfusion"
    return home / name


@contextmanager
def one_writer(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lock a file or folder for writing by this process inside the block, and delete leftovers of killed writers.

    The lock file is in the parent folder and is released when the process ends. Under torchrun, the first process locks
    for all.

    Raises:
        BlockingIOError: Another process is writing it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(Path(path).expanduser()))
    place = path.parent
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    place.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not os.access(place, os.W_OK):  # such as a mounted volume
        place = cache_folder("locks")
        place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f".{path.name[:_STEM]}-{short_hash(str(path))}.lock", timeout=0)
    try:
        lock.acquire()
    except NotImplementedError:
        logger.warning("The file system of %s has no locks: a second process could write there.", path)
    except Timeout:
        fix = "wait until it has ended, or choose another output."
        raise BlockingIOError(f"{path} is being written by another process; {fix}") from None
    except OSError as error:
        raise type(error)(f"{path} cannot be written: {error.strerror}.") from None
    try:
        for left in _partials(path):
            left.unlink(missing_ok=True)
        yield
    finally:
        # before it is released, since afterwards it may be another's; Windows removes it by itself
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()  # if nothing was written


def sole_writer(verb: Callable[P, R]) -> Callable[P, R]:
    """Decorate a function with :func:`one_writer` for its ``output``, or that of its options (first argument)."""
    signature = inspect.signature(verb)

    @wraps(verb)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        output = given["output"] if "output" in given else next(iter(given.values())).output
        with one_writer(output) if output is not None else nullcontext():
            return verb(*args, **kwargs)

    return alone


def _partials(path: Path) -> list[Path]:
    """Temporary files of :func:`written_whole`, for a file or for those in a folder, left by a killed process."""
    if path.is_dir():
        return list(path.glob(".*.partial*"))
    return list(path.parent.glob(f".{glob.escape(path.stem[:_STEM])}.*.partial{glob.escape(path.suffix)}"))


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Raise a single OSError with the path if the disk is full, whatever error the writing library raises."""
    try:
        yield
    except Exception as error:
        if _is_full(error, path):
            what = f"There is no space left on the disk for {path}; free some and start again."
            raise OSError(f"{what} Existing files are unchanged.") from error
        raise


def _is_full(error: Exception, path: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    there = next(folder for folder in path.absolute().parents if folder.exists())
    # safetensors gives the number in words, torch's archive writer nothing
    words = ("os error 28", "inline_container.cc", "iostream error")
    return any(word in str(error) for word in words) or shutil.disk_usage(there).free < 4096


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yield a temporary path with the same suffix, which replaces ``path`` when the block ends.

    After an error, the old file is kept and nothing else. The temporary path is unique.
    """
    partial = path.with_name(f".{path.stem[:_STEM]}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        with room_for(path):
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            partial.chmod(mode)  # safetensors creates files readable only by their owner
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def written_table(path: Path) -> Iterator[Any]:
    """Yield a ``csv.writer`` for a table written atomically, in UTF-8, with line feeds.

    Any cell can be read back by CSV readers; lone surrogates are escaped.
    """
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", errors=_ESCAPED, newline="") as file:
        yield csv.writer(_LineFeeds(file), lineterminator="\r\n")


def write_frame(path: Path, frame: Any, **options: Any) -> None:
    """Write a pandas DataFrame without its index like :func:`written_table`; options are those of ``to_csv``."""
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", errors=_ESCAPED, newline="") as file:
        frame.to_csv(_LineFeeds(file), index=False, lineterminator="\r\n", **options)


def write_figure(path: Path, figure: Any, *, dpi: int) -> None:
    """Write a matplotlib figure as PNG. Text between dollar signs is not treated as a formula."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure)
    with rc_context({"text.parse_math": False}), written_whole(path) as partial:
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        figure.savefig(partial, dpi=dpi, bbox_inches="tight")


class _LineFeeds(io.TextIOBase):
    """A file with line feeds. The csv writer uses both characters, so that cells with either are quoted."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n" if line.endswith("\r\n") else line)


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values as YAML, atomically; a table in memory is written as its text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """Represents subclasses of str as strings."""

    Dumper.add_multi_representer(str, lambda dumper, text: dumper.represent_str(str(text)))
    write_text(path, yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the plain values of a YAML file; ValueError in one line if invalid."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {one_line(error)}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} has no settings; it is damaged or was edited by hand.")
    return values


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8, atomically."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=_ESCAPED)


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 2) -> None:
    """Write plain values as JSON, atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in a file; FileNotFoundError or ValueError if missing or invalid."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be read.") from None
    except ValueError as error:  # invalid text or JSON, or a number with thousands of digits
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} contains a JSON {type(value).__name__}, not an object.")
    return value


def update_json(path: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Update entries of the JSON object in a file, atomically, keeping the others. Returns all entries."""
    values = {**(read_json(path) if path.exists() else {}), **entries}
    write_json(path, values)
    return values


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that replaces ``folder`` when the block ends without error.

    After an error the old folder is kept. After a kill there is either the old or the new folder, never a mixture;
    :func:`recover` restores the old one if the kill was between the two renames.
    """
    partial, previous = _beside(folder)
    recover(folder)
    try:
        with room_for(folder):
            partial.mkdir(parents=True)
            yield partial
            if folder.exists():
                folder.rename(previous)
            partial.rename(folder)
    finally:
        recover(folder)


def recover(folder: Path) -> None:
    """Clean up after a killed :func:`replacing`."""
    partial, previous = _beside(folder)
    if previous.exists() and not folder.exists():
        previous.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """Paths of the unfinished new folder, and of the old one during the swap."""
    return folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.previous")
