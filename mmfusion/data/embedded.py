"""Images stored in Parquet files by the ``datasets`` library, unpacked once into the user's cache."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion.files import cache_folder, short_hash, written_whole

if TYPE_CHECKING:
    import pyarrow as pa

#: Leading bytes of a file -> suffix, for images without a name.
_STARTS = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"RIFF": ".webp",
}


class EmbeddedImages:
    """Columns of a Parquet file with images, each cell a struct of ``bytes`` and ``path``.

    Args:
        path: The file.
        schema: Schema of the file.

    Attributes:
        root: Folder of the unpacked images, one per version of the file; None if it has no images.
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
        """Replace the images of a column by their paths relative to the root.

        Args:
            name: Name of the column.
            cells: Cells as Python values.
            first: Number of rows before these cells in the file.
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
    """Turn a name from the file into a safe file name."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".")


def class_names(schema: pa.Schema) -> dict[str, dict[int | None, str]]:
    """Column -> class number -> name, for columns that ``datasets`` declares as ``ClassLabel``."""
    try:
        described = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    except (ValueError, RecursionError):
        return {}  # metadata of another library, needed for class names only
    features = (described.get("info") or {}).get("features") or {}
    return {
        name: dict(enumerate(feature["names"]))
        for name, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
    }
