"""Where the images lie: paths are looked up below one folder, and nothing outside it is taken."""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from mmfusion.data.config import DatasetConfig
from mmfusion.data.image_kinds import IMAGE_SUFFIXES
from mmfusion.data.problems import ProblemKind

_PROBED = 200


class ImagePathError(ValueError):
    """A path under which no image may be opened, and of what kind that problem is."""

    def __init__(self, kind: ProblemKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class ImageFolder:
    """Finds images below one folder and refuses what lies outside it. Each folder is listed once."""

    def __init__(self, root: Path, suffixes: Sequence[str] = IMAGE_SUFFIXES) -> None:
        self.root, self._suffixes = root, suffixes
        self._listing = lru_cache(maxsize=None)(self._list)

    def find(self, value: str) -> str:
        """The path of an image, relative to the root, for a path or an id without its extension.

        An absolute path that lies below the root is taken as well, and the folder of a DICOM series.

        Raises:
            ImagePathError: There is no such file, or it lies outside the root.
        """
        path = PurePosixPath(self._below_root(value))
        if path.is_absolute() or PureWindowsPath(value).is_absolute() or ".." in path.parts:
            outside = f"the path must lie below the image root {self.root}, without '..'"
            raise ImagePathError(ProblemKind.OUTSIDE_ROOT, outside)
        folder = path.parent.as_posix()
        links, by_name = self._listing(folder)
        name = by_name.get(path.name)
        if name is None:
            raise ImagePathError(ProblemKind.MISSING_IMAGE, f"the image file does not exist below {self.root}")
        if links[name] and not _is_inside(self.root / folder / name, self.root):
            outside = f"the file is a link that leads out of the image root {self.root}"
            raise ImagePathError(ProblemKind.OUTSIDE_ROOT, outside)
        return name if folder == "." else f"{folder}/{name}"

    def _below_root(self, value: str) -> str:
        """A path without the root where it begins with it, as another library's table may have it."""
        root = os.path.abspath(self.root)
        return Path(value).relative_to(root).as_posix() if Path(value).is_relative_to(root) else value

    def _list(self, folder: str) -> tuple[dict[str, bool], dict[str, str]]:
        """What is in a folder -> whether it is a link, and the names and ids of images -> files, or else folders."""
        path = self.root / folder
        if not path.is_dir():
            return {}, {}
        if not _is_inside(path, self.root):
            outside = f"the folder {folder!r} is a link that leads out of the image root {self.root}"
            raise ImagePathError(ProblemKind.OUTSIDE_ROOT, outside)
        with os.scandir(path) as entries:
            links = {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}
        by_name = {name: name for name in links}
        for suffix in self._suffixes:
            for name in sorted(name for name in links if name.lower().endswith(suffix)):
                by_name.setdefault(name[: -len(suffix)], name)
        with os.scandir(path) as entries:
            folders = {entry.name: entry.is_symlink() for entry in entries if entry.is_dir()}
        by_name = {name: name for name in folders} | by_name
        return folders | links, by_name


def _is_inside(path: Path, root: Path) -> bool:
    """Whether a path, its links followed, lies in a folder or is that folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def find_shared_root(paths: Sequence[str]) -> Path:
    """The folder of the images of a table in memory: the working directory, or else what all of them lie in.

    Args:
        paths: Absolute paths of the images.
    """
    here = Path.cwd()
    if all(Path(path).is_relative_to(here) for path in paths):
        return here
    return Path(os.path.commonpath([os.path.dirname(path) for path in paths]))


def find_image_root(folder: Path, config: DatasetConfig, values: Sequence[str | None]) -> Path:
    """The folder of the images: the one named, or of the root and ``images`` the one where the first images are."""
    if config.image_root is not None:
        root = folder / config.image_root
        if not root.is_dir():
            raise FileNotFoundError(f"The image root {root} (dataset.image_root) does not exist.")
        return root
    images = folder / "images"
    if not images.is_dir():
        return folder
    probes = [value for value in values if value is not None][:_PROBED]
    if _count_found(images, probes) <= _count_found(folder, probes):
        return folder
    if not _is_inside(images, folder):
        raise ValueError(f"{images} is a link out of {folder}; if that is meant, set dataset.image_root: images.")
    return images


def _count_found(root: Path, values: Iterable[str]) -> int:
    images, found = ImageFolder(root), 0
    for value in values:
        with suppress(ImagePathError):
            images.find(value)
            found += 1
    return found
