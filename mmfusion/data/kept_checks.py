"""Cache of images that were decoded successfully, so that they are not decoded again."""

import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import PIL

from mmfusion._version import __version__
from mmfusion.files import cache_folder, read_json, sha256, short_hash, write_text
from mmfusion.images.kinds import DETACHED_SUFFIXES


class KeptChecks:
    """The valid images in one folder, each with size, modification time and hash of its file.

    A file with unchanged size and time is trusted; one with another time, such as a copy, if its hash is the same.
    Results of other versions of this library or of Pillow are discarded.

    Args:
        root: Root folder of the images.
        chosen: Settings of how the files are read.
    """

    def __init__(self, root: Path, *chosen: int | str | None) -> None:
        self._root, self._reader = os.fspath(root), f"mmfusion {__version__}, Pillow {PIL.__version__}"
        self._path = cache_folder("checked") / f"{short_hash([os.path.realpath(root), *chosen])}.json"
        self._sound: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError, KeyError):
            kept = read_json(self._path)
            self._sound = kept["images"] if kept["reader"] == self._reader else {}
        self._is_changed = False

    def is_sound(self, name: str) -> bool:
        """Whether an image, by its path relative to the folder, was valid and has not changed."""
        if (kept := self._sound.get(name)) is None:
            return False
        try:
            state = os.stat(f"{self._root}/{name}")
            if state.st_size != kept[0]:
                return False
            if state.st_mtime_ns == kept[1]:
                return True
            is_same = sha256(Path(self._root, name))[:32] == kept[2]
        except OSError:
            return False
        if is_same:
            self._sound[name], self._is_changed = [kept[0], state.st_mtime_ns, kept[2]], True
        return is_same

    def keep(self, name: str) -> None:
        """Remember a valid image; folders and headers with pixels in another file are skipped."""
        if name.lower().endswith(DETACHED_SUFFIXES):
            return
        with suppress(OSError):
            state, digest = os.stat(os.path.join(self._root, name)), sha256(Path(self._root, name))[:32]
            self._sound[name], self._is_changed = [state.st_size, state.st_mtime_ns, digest], True

    def save(self) -> None:
        """Write new entries; errors are ignored if the cache is read-only."""
        if not self._is_changed:
            return
        with suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps({"reader": self._reader, "images": self._sound}))
