"""Images inside a Parquet file, as the ``datasets`` library writes them: unpacked once into the user's cache."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.files import cache_folder, short_hash, written_whole

if TYPE_CHECKING:
    import pyarrow as pa

#: First bytes of a file -> its suffix, for images without a name.
_STARTS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"RIFF": ".webp",
}


class EmbeddedImages:
    """The columns of a Parquet file that hold images, each cell a struct of ``bytes`` and ``path``.

    Args:
        path: The file.
        schema: Its schema.

    Attributes:
        root: Folder of the unpacked images, one for each state of the file; None where it holds none.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        import pyarrow as pa

        self._names = {
            field.name
            for field in schema
            if pa.types.is_struct(field.type) and {"bytes", "path"} == {part.name for part in field.type}
        }
        self.root: Path | None = None
        if self._names:
            state = path.stat()
            key = short_hash([str(path.resolve()), state.st_size, state.st_mtime_ns])
            self.root = cache_folder("embedded") / key

    def unpacked(self, name: str, cells: list[Any], first: int) -> list[Any]:
        """The cells of a column, an image as its path below the root.

        Args:
            name: Of the column.
            cells: Its cells as Python has them.
            first: Rows of the file before them.
        """
        if name not in self._names or self.root is None:
            return cells
        return [self._path(name, cell, row) for row, cell in enumerate(cells, start=first + 1)]

    def _path(self, name: str, cell: dict[str, Any] | None, row: int) -> str | None:
        if cell is None or cell["bytes"] is None:
            return None if cell is None else cell["path"]
        assert self.root is not None
        content: bytes = cell["bytes"]
        given = _plain(Path((cell["path"] or "").replace("\\", "/")).name)
        known = next((suffix for start, suffix in _STARTS.items() if content.startswith(start)), ".img")
        place = Path(_plain(name) or "image", f"{row:07d}", given or f"image{known}")
        target = self.root / place
        if not target.is_file() or target.stat().st_size != len(content):
            target.parent.mkdir(parents=True, exist_ok=True)
            with written_whole(target) as partial:
                partial.write_bytes(content)
        return place.as_posix()


def _plain(name: str) -> str:
    """A name from the file as one of a file on disk."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".")


def class_names(schema: pa.Schema) -> dict[str, dict[int | None, str]]:
    """Column -> class number -> name, of the columns that ``datasets`` describes as ``ClassLabel``."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}  # a note of another library, which nothing depends on but the names
    features = (described.get("info") or {}).get("features") or {}
    return {
        name: dict(enumerate(feature["names"]))
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }
