"""Lists the files in a folder, and what is skipped."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from mmfusion.images.kinds import is_image_file
from mmfusion.names import natural_key

#: Extra folder in macOS archives.
_ARCHIVE = "__MACOSX"
_SHOWN = 3
#: Known files of image folders that are not images.
_NO_IMAGES = ("thumbs.db", "desktop.ini", "license", "license.txt", "readme", "readme.md", "readme.txt")


@dataclass
class Walked:
    """Files in a folder, recursively.

    Attributes:
        root: The folder.
        files: Paths relative to the folder, folder by folder in natural order.
        hidden: Skipped folders, with names that begin with a dot or hold the extra files of macOS archives.
        links: Links to folders that were not followed.
    """

    root: Path
    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)

    @cached_property
    def images(self) -> list[str]:
        """The files that are images."""
        return [name for name in self.files if is_image_file(self.root / name)]

    def notes(self) -> list[str]:
        """One line per kind of file or folder that is skipped when reading images."""
        others = set(self.files).difference(self.images)
        odd = sorted(name for name in others if Path(name).name.lower() not in _NO_IMAGES)
        kinds = Counter(Path(name).suffix.lower() or "no suffix" for name in odd)
        counted = ", ".join(f"{count:,} {suffix}" for suffix, count in kinds.most_common(5))
        notes = [f"{len(odd):,} files are not read: not the suffix of an image ({counted})"] if odd else []
        if self.hidden:
            notes.append(f"{len(self.hidden):,} hidden folders are not read ({_first(self.hidden)})")
        if self.links:
            how = "set dataset.follow_links true to follow them"
            notes.append(f"{len(self.links):,} links to folders are not followed ({_first(self.links)}); {how}")
        return notes


def walk(folder: Path, *, follow_links: bool = False) -> Walked:
    """List the files in a folder recursively, without hidden ones; a folder with several links is listed once."""
    found, seen = Walked(folder), {os.path.realpath(folder)}
    for path, folders, files in os.walk(folder, followlinks=follow_links):
        relative = Path(path).relative_to(folder).as_posix()
        place = "" if relative == "." else f"{relative}/"
        entered = []
        for name in sorted(folders, key=natural_key):
            below = place + name
            real = os.path.realpath(os.path.join(path, name))
            if name.startswith(".") or name == _ARCHIVE:
                found.hidden.append(below)
            elif not follow_links and os.path.islink(os.path.join(path, name)):
                found.links.append(below)
            elif real not in seen:
                seen.add(real)
                entered.append(name)
        folders[:] = entered
        names = sorted((name for name in files if not name.startswith(".")), key=natural_key)
        found.files += [place + name for name in names]
    return found


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
