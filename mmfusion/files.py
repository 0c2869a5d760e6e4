"""Files and folders that are written whole or not at all, and their hashes."""

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

#: how half of a character, which UTF-8 does not have, is written; JSON reads the same back.
_ESCAPED = "backslashreplace"
#: errors of the system that say that a disk is full.
FULL = (errno.ENOSPC, errno.EDQUOT)
#: characters of a file's name that its temporary name keeps, since both have to fit.
_STEM = 100


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def short_hash(values: Any) -> str:
    """A name of 16 characters for plain values, the same whenever they are."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:16]


def cache_folder(name: str) -> Path:
    """A folder of the user's cache: below ``MMFUSION_CACHE``, else ``mmfusion`` in the cache of the user's account."""
    own = os.environ.get("MMFUSION_CACHE")
    home = Path(own) if own else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mmfusion"
    return home / name


@contextmanager
def one_writer(path: str | os.PathLike[str]) -> Iterator[None]:
    """Be the only process that writes a file or a folder inside the block; what a killed writer left half is cleared.

    The lock lies beside it, in its parent, and ends with the process, however that ends. Of several processes that
    torchrun started the first asks for all.

    Raises:
        BlockingIOError: Another process writes it.
    """
    if os.environ.get("RANK", "0") != "0":
        yield
        return
    from filelock import FileLock, Timeout

    path = Path(os.path.realpath(Path(path).expanduser()))
    place = path.parent
    made = [folder for folder in (place, *place.parents) if not folder.exists()]
    place.mkdir(parents=True, exist_ok=True)
    if path.is_dir() and not os.access(place, os.W_OK):  # such as a volume that is mounted there
        place = cache_folder("locks")
        place.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place / f".{path.name[:_STEM]}-{short_hash(str(path))}.lock", timeout=0)
    try:
        lock.acquire()
    except NotImplementedError:
        logger.warning("The file system of %s has no locks: nothing refuses a second process that writes there.", path)
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
        # before it is let go, for it may be another's afterwards; Windows removes it then by itself
        with suppress(OSError):
            os.unlink(lock.lock_file)
        lock.release()
        for folder in made:
            with suppress(OSError):
                folder.rmdir()  # where nothing was written after all


def sole_writer(verb: Callable[P, R]) -> Callable[P, R]:
    """Make a function :func:`one_writer` of its ``output``, or that of the options that are its first argument."""
    signature = inspect.signature(verb)

    @wraps(verb)
    def alone(*args: P.args, **kwargs: P.kwargs) -> R:
        given = signature.bind(*args, **kwargs).arguments
        output = given["output"] if "output" in given else next(iter(given.values())).output
        with one_writer(output) if output is not None else nullcontext():
            return verb(*args, **kwargs)

    return alone


def _partials(path: Path) -> list[Path]:
    """What :func:`written_whole` was writing of a file, or of those directly in a folder, when it was killed."""
    if path.is_dir():
        return list(path.glob(".*.partial*"))
    return list(path.parent.glob(f".{glob.escape(path.stem[:_STEM])}.*.partial{glob.escape(path.suffix)}"))


@contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Say in one OSError, with the path, that a disk is full, whatever the library that writes there makes of it."""
    try:
        yield
    except Exception as error:
        if _is_full(error, path):
            what = f"There is no room left on the disk for {path}; make some, and start again."
            raise OSError(f"{what} What was there before is as it was.") from error
        raise


def _is_full(error: Exception, path: Path) -> bool:
    if isinstance(error, OSError):
        return error.errno in FULL
    there = next(folder for folder in path.absolute().parents if folder.exists())
    # safetensors tells the number in words, torch's writer of archives nothing
    words = ("os error 28", "inline_container.cc", "iostream error")
    return any(word in str(error) for word in words) or shutil.disk_usage(there).free < 4096


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a path to write to, beside ``path`` and of the same suffix, that takes its place once the block has ended.

    An error in the block leaves what was there before, and nothing else. The path is another one each time.
    """
    partial = path.with_name(f".{path.stem[:_STEM]}.{secrets.token_hex(4)}.partial{path.suffix}")
    try:
        with room_for(path):
            partial.touch()
            mode = partial.stat().st_mode
            yield partial
            partial.chmod(mode)  # safetensors makes files that only their owner can read
            os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def written_table(path: Path) -> Iterator[Any]:
    """Give a ``csv.writer`` for a table that is there whole at the end, in UTF-8, a line feed after each line.

    Whatever a cell holds, a reader of CSV gets it back; half of a character, which no UTF-8 has, as an escape.
    """
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", errors=_ESCAPED, newline="") as file:
        yield csv.writer(_LineFeeds(file), lineterminator="\r\n")


def write_frame(path: Path, frame: Any, **options: Any) -> None:
    """Write a pandas DataFrame without its index, as :func:`written_table` writes; options are those of ``to_csv``."""
    with written_whole(path) as partial, partial.open("w", encoding="utf-8", errors=_ESCAPED, newline="") as file:
        frame.to_csv(_LineFeeds(file), index=False, lineterminator="\r\n", **options)


def write_figure(path: Path, figure: Any, *, dpi: int) -> None:
    """Write a matplotlib figure as PNG. What stands between two dollar signs is a name like any other, no formula."""
    from matplotlib import rc_context
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.text import Text

    FigureCanvasAgg(figure)
    with rc_context({"text.parse_math": False}), written_whole(path) as partial:
        for text in figure.findobj(Text):
            text.set_parse_math(False)
        figure.savefig(partial, dpi=dpi, bbox_inches="tight")


class _LineFeeds(io.TextIOBase):
    """A file whose lines end in a line feed. They are made with both signs, so that a cell with either is quoted."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, line: str) -> int:
        return self._file.write(line.removesuffix("\r\n") + "\n" if line.endswith("\r\n") else line)


def write_yaml(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested plain values, atomically; a table in memory, where the path of a data set stands, as its text."""
    import yaml

    class Dumper(yaml.SafeDumper):
        """It knows the subclasses of str."""

    Dumper.add_multi_representer(str, lambda dumper, text: dumper.represent_str(str(text)))
    write_text(path, yaml.dump(values, Dumper=Dumper, sort_keys=False, allow_unicode=True))


def read_yaml(path: Path) -> dict[str, Any]:
    """The plain values in a YAML file; ValueError, in one line, where it holds none."""
    import yaml

    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{path} is not YAML: {one_line(error)}.") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds no settings; it was damaged, or written by hand.")
    return values


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, atomically."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8", errors=_ESCAPED)


def write_json(path: Path, value: Mapping[str, Any], *, indent: int = 2) -> None:
    """Write plain values as JSON, atomically."""
    write_text(path, json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; FileNotFoundError or ValueError where there is none."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise ValueError(f"{path} is nested too deep to be read.") from None
    except ValueError as error:  # of the text, of the JSON, or of a number of thousands of digits
        raise ValueError(f"{path} is not JSON: {error}.") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a JSON {type(value).__name__}, not an object.")
    return value


def update_json(path: Path, entries: Mapping[str, Any]) -> dict[str, Any]:
    """Write entries over those of the JSON object in a file, atomically; its other entries stay. Returns them all."""
    values = {**(read_json(path) if path.exists() else {}), **entries}
    write_json(path, values)
    return values


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write to, which takes the place of ``folder`` once the block has ended well.

    An error in the block leaves the old folder. A kill leaves the old folder or the new one, never a mixture;
    :func:`recover` puts back the old one where the kill fell between the two renames.
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
    """Clear away what a killed :func:`replacing` left."""
    partial, previous = _beside(folder)
    if previous.exists() and not folder.exists():
        previous.rename(folder)
    shutil.rmtree(previous, ignore_errors=True)
    shutil.rmtree(partial, ignore_errors=True)


def _beside(folder: Path) -> tuple[Path, Path]:
    """The unfinished new folder, and the old one while the two change places."""
    return folder.with_name(f"{folder.name}.partial"), folder.with_name(f"{folder.name}.previous")
