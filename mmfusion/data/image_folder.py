"""Image lookup: finds paths inside one root folder and rejects everything outside it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from mmfusion.data.config import DatasetConfig
from mmfusion.data.problems import ProblemKind
from mmfusion.data.walking import walk
from mmfusion.images.kinds import IMAGE_SUFFIXES

_PROBED = 200
#: Beginning of an absolute Windows path.
_WINDOWS_ROOT = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_FOLLOW = "set dataset.follow_links true to follow it"


class ImagePathError(ValueError):
    """An image path that cannot be used, with the kind of the problem."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ImageFolder:
    """Finds images inside a root folder and rejects paths outside it. Each folder is listed once.

    Args:
        root: Root folder.
        suffixes: Suffixes to complete an id with.
        within: Folders inside the root that paths are relative to.
        follow_links: Follow links that leave the root.
    """

    def __init__(
        self,
        root: Path,
        suffixes: Sequence[str] = IMAGE_SUFFIXES,
        *,
        within: Sequence[str] = (".",),
        follow_links: bool = False,
    ) -> None:
        self.root, self._suffixes, self._within, self._follow = root, suffixes, within, follow_links
        self._listing = lru_cache(maxsize=None)(self._list)

    def find(self, value: str) -> str:
        """Return the path of an image relative to the root, given a path or an id without extension.

        Absolute paths inside the root, folders of DICOM series and Windows separators are accepted too. If the path
        does not exist, all subfolders are searched for a file of this name or id whose path ends with the given one.
        id whose path ends like the one given.

        Raises:
            ImagePathError: There is no such file, there are several, or it is outside the root.
        """
        try:
            return self._found(value)
        except ImagePathError:
            raise
        except (OSError, ValueError) as error:  # name too long, link loop, invalid character
            reason = getattr(error, "strerror", None) or error
            raise ImagePathError(ProblemKind.MISSING_IMAGE, f"the image path cannot be used: {reason}") from None

    def _found(self, value: str) -> str:
        # strings throughout: path objects dominated the time of reading a long table
        below = self._below_root(value)
        *folders, name = [part for part in below.split("/") if part not in ("", ".")] or [""]
        if below.startswith("/") or _WINDOWS_ROOT.match(value) or ".." in (*folders, name):
            outside = f"the path must be inside the image root {self.root} (dataset.image_root), without '..'"
            raise ImagePathError(ProblemKind.OUTSIDE_ROOT, outside)
        folder = "/".join(folders)
        places = [folder] if below != value else [_joined(place, folder) for place in self._within]
        found = [path for place in places for path in self._in_folder(place, name)]
        if not found:
            names, stems = self._everywhere
            named, end = names.get(name) or stems.get(name) or [], f"/{folder}" if folder else ""
            found = [path for path in named if f"/{path}".rpartition("/")[0].endswith(end)]
        if not found and "\\" in value:
            return self.find(value.replace("\\", "/"))
        if not found and "://" in value:
            message = "images are not downloaded from URLs; download them and give their paths"
            raise ImagePathError(ProblemKind.MISSING_IMAGE, message)
        if not found:
            missing = f"the image file does not exist in {self.root}"
            if there := self._with_zeros.get(name.removesuffix(".0")):
                missing += f"; {there} does: leading zeros of the ids were lost, read them as text"
            raise ImagePathError(ProblemKind.MISSING_IMAGE, missing)
        if len(found) > 1:
            several = f"{len(found)} files match this name or id, {found[0]} and {found[1]}; give the path of one"
            raise ImagePathError(ProblemKind.MISSING_IMAGE, several)
        if self._is_link(found[0]) and not self._follow and not _is_inside(self.root / found[0], self.root):
            outside = f"the file is a link out of the image root {self.root}"
            raise ImagePathError(ProblemKind.OUTSIDE_ROOT, f"{outside}; {_FOLLOW}")
        return found[0]

    def there(self, value: str) -> bool:
        """Whether an image exists at its path, without searching subfolders."""
        folder, _, name = self._below_root(value).rpartition("/")
        return any(self._in_folder(_joined(place, folder), name) for place in self._within)

    def _below_root(self, value: str) -> str:
        """Strip the root from a path that starts with it, as in tables of other libraries."""
        if not os.path.isabs(value):
            return value
        for root in (os.path.abspath(self.root), os.path.realpath(self.root)):
            if Path(value).is_relative_to(root):
                return Path(value).relative_to(root).as_posix()
        return value

    def _in_folder(self, folder: str, name: str) -> list[str]:
        """The file of this name, else files with this id, else the folder of this name (a series)."""
        listed = self._listing(folder)
        found = [name] if name in listed.files else listed.ids.get(name, [name] if name in listed.folders else [])
        return [_joined(folder, each) for each in found]

    def _is_link(self, path: str) -> bool:
        folder, _, name = path.rpartition("/")
        return name in self._listing(folder).links

    def _list(self, folder: str) -> _Listed:
        """The contents of a folder; empty if it does not exist."""
        path, listed = self.root / folder, _Listed(self._suffixes)
        if not path.is_dir():
            return listed
        if not self._follow and not _is_inside(path, self.root):
            outside = f"the folder {folder!r} is a link out of the image root {self.root}"
            raise ImagePathError(ProblemKind.OUTSIDE_ROOT, f"{outside}; {_FOLLOW}")
        with os.scandir(path) as entries:
            for entry in entries:
                (listed.folders if _is_folder(entry) else listed.files).add(entry.name)
                if entry.is_symlink():
                    listed.links.add(entry.name)
        return listed

    @cached_property
    def _everywhere(self) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """File names, and image ids, -> paths of all files in the subfolders."""
        paths: list[str] = []
        for place in self._within:
            below = walk(self.root / place, follow_links=self._follow).files
            paths += below if place == "." else [_joined(place, name) for name in below]
        names: dict[str, list[str]] = {}
        for path in paths:
            names.setdefault(path.rpartition("/")[2], []).append(path)
        return names, _by_id(paths, self._suffixes)

    @cached_property
    def _with_zeros(self) -> dict[str, str]:
        """Numeric image id without its leading zeros -> path of the file."""
        stems = self._everywhere[1]
        return {stem.lstrip("0"): paths[0] for stem, paths in stems.items() if stem[:1] == "0" and stem.isdecimal()}


@dataclass
class _Listed:
    """Names of the files, folders and links in one folder; image ids -> files with known ``suffixes``."""

    suffixes: Sequence[str]
    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    links: set[str] = field(default_factory=set)

    @cached_property
    def ids(self) -> dict[str, list[str]]:
        return _by_id(sorted(self.files), self.suffixes)


def _by_id(paths: Sequence[str], suffixes: Sequence[str]) -> dict[str, list[str]]:
    """Image id, the file name without its suffix, -> paths."""
    ids: dict[str, list[str]] = {}
    # the longest matching suffix of a small set: .nii.gz before .gz
    ends = re.compile(f"(?:{'|'.join(map(re.escape, sorted(suffixes, key=len, reverse=True)))})$", re.IGNORECASE)
    for path in paths:
        name = path.rpartition("/")[2]
        if end := ends.search(name):
            ids.setdefault(name[: end.start()], []).append(path)
    return ids


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder; False for a link to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _joined(folder: str, name: str) -> str:
    """Join a folder and a name to a path relative to the root; the root itself is ``.``."""
    return name if folder in ("", ".") else f"{folder}/{name}" if name else folder


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path, with links resolved, is a folder or inside it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def find_shared_root(paths: Sequence[str]) -> Path:
    """Image root of a table in memory: the working directory, or else the common parent of all images.

    Args:
        paths: Absolute paths of the images.
    """
    here = Path.cwd()
    if all(Path(path).is_relative_to(here) for path in paths):
        return here
    return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


def find_image_root(folder: Path, config: DatasetConfig, values: Sequence[str | None]) -> Path:
    """Image root: the folder given (the common parent of several), or the root or ``images``, whichever has the
    first images.
    """
    if config.image_roots:
        roots = [folder / name for name in config.image_roots]
        for root in roots:
            if not root.is_dir():
                raise FileNotFoundError(f"The image root {root} (dataset.image_root) does not exist.")
        return roots[0] if len(roots) == 1 else Path(os.path.commonpath(roots))
    images = folder / "images"
    if not images.is_dir():
        return folder
    probes = [value for value in values if value is not None][:_PROBED]
    if _count_found(images, probes) <= _count_found(folder, probes):
        return folder
    if not config.follow_links and not _is_inside(images, folder):
        raise ValueError(f"{images} is a link out of {folder}; to allow it, set dataset.image_root: images.")
    return images


def open_image_folder(folder: Path, root: Path, config: DatasetConfig, suffixes: Sequence[str]) -> ImageFolder:
    """Open the image folder of a data set.

    Args:
        folder: Folder of the data set.
        root: Result of :func:`find_image_root`.
        config: How the data set is read.
        suffixes: Suffixes of image files.
    """
    roots = [Path(os.path.relpath(folder / name, root)).as_posix() for name in config.image_roots]
    within = roots if len(roots) > 1 else ["."]
    return ImageFolder(root, suffixes, within=within, follow_links=config.follow_links)


def _count_found(root: Path, values: Iterable[str]) -> int:
    """Number of images that exist at their paths in a folder."""
    images, found = ImageFolder(root), 0
    for value in values:
        with suppress(ValueError, OSError):  # find reports these later
            found += bool(images.there(value))
    return found
