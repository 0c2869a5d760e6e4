"""Features of frozen towers on disk: written once, read through memory maps, batched like encoded cases."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

_INDEX, _OFFSETS = "index.json", "offsets.npy"


class FeatureStore:
    """Named arrays with one entry per row, memory-mapped: opening it reads nothing, and processes share its pages.

    Args:
        folder: of a :class:`FeatureWriter`.

    Attributes:
        about: what the features were made of, as it was given to the writer.
        padded: names of the arrays whose entries differ in length.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: a file has another size than the index says.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / _INDEX).is_file():
            raise FileNotFoundError(f"{folder} holds no features (no {_INDEX}).")
        index = json.loads((folder / _INDEX).read_text(encoding="utf-8"))
        self.about: dict[str, Any] = index["about"]
        self.padded: tuple[str, ...] = tuple(index["padded"])
        self._rows: int = index["rows"]
        self._offsets = np.load(folder / _OFFSETS)
        self._arrays: dict[str, NDArray[Any]] = {}
        for name, layout in index["arrays"].items():
            count = int(self._offsets[-1]) if name in self.padded else self._rows
            shape, dtype = (count, *layout["shape"]), np.dtype(layout["dtype"])
            path = folder / f"{name}.bin"
            if not path.is_file() or path.stat().st_size != int(np.prod(shape)) * dtype.itemsize:
                raise ValueError(f"{path} is not what {folder / _INDEX} says; remove the folder to compute it anew.")
            self._arrays[name] = np.memmap(path, dtype, "r", shape=shape) if count else np.zeros(shape, dtype)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> dict[str, NDArray[Any]]:
        """The arrays of one row; those that are padded in a batch are as long as the row."""
        span = slice(self._offsets[row], self._offsets[row + 1])
        return {name: array[span if name in self.padded else row] for name, array in self._arrays.items()}

    def collate(self, rows: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, torch.Tensor]:
        """Rows as tensors (B, ...), padded with zeros (False) to the longest of them."""
        batch = {name: [row[name] for row in rows] for name in rows[0]}
        return {name: torch.from_numpy((_pad if name in self.padded else np.stack)(x)) for name, x in batch.items()}


def _pad(entries: Sequence[NDArray[Any]]) -> NDArray[Any]:
    padded = np.zeros((len(entries), max(map(len, entries)), *entries[0].shape[1:]), entries[0].dtype)
    for i, entry in enumerate(entries):
        padded[i, : len(entry)] = entry
    return padded


class FeatureWriter:
    """Writes a :class:`FeatureStore`, batch by batch, in bounded memory.

    A context manager. The store appears under its name when it is whole; one that another process wrote meanwhile
    stays.

    Args:
        folder: of the store.
        about: plain values that say what the features are made of.
        padded: names of the arrays (B, L, ...) that are padded along L; ``mask`` (B, L) is among them where there are
            any, and tells the length of a row: up to its last True, at least 1.
    """

    def __init__(self, folder: str | Path, about: Mapping[str, Any], padded: Sequence[str] = ()) -> None:
        self.folder = Path(folder)
        self._about = dict(about)
        self._padded = tuple(padded)
        self._offsets = [0]
        self._arrays: dict[str, dict[str, Any]] = {}

    def __enter__(self) -> FeatureWriter:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        self._partial = Path(tempfile.mkdtemp(prefix=f".{self.folder.name}.", dir=self.folder.parent))
        self._files: dict[str, Any] = {}
        return self

    def append(self, encoded: Mapping[str, NDArray[Any]]) -> None:
        """Add a batch: name -> (B, ...)."""
        count = len(next(iter(encoded.values())))
        lengths = np.ones(count, dtype=np.int64)
        if self._padded:
            mask = encoded["mask"]
            lengths = np.where(mask.any(axis=1), mask.shape[1] - np.argmax(mask[:, ::-1], axis=1), 1)
        self._offsets += (self._offsets[-1] + np.cumsum(lengths)).tolist()
        for name, batch in encoded.items():
            padded = name in self._padded
            layout = {"dtype": batch.dtype.str, "shape": list(batch.shape[2 if padded else 1 :])}
            if self._arrays.setdefault(name, layout) != layout:
                raise ValueError(
                    f"The features {name!r} changed from {self._arrays[name]} to {layout} between batches."
                )
            if name not in self._files:
                self._files[name] = (self._partial / f"{name}.bin").open("wb")
            parts = [row[:length] for row, length in zip(batch, lengths, strict=True)] if padded else [batch]
            for part in parts:
                self._files[name].write(np.ascontiguousarray(part).tobytes())

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in self._files.values():
            file.close()
        if error is None:
            np.save(self._partial / _OFFSETS, np.array(self._offsets, dtype=np.int64))
            index = {
                "rows": len(self._offsets) - 1,
                "padded": list(self._padded),
                "arrays": self._arrays,
                "about": self._about,
            }
            (self._partial / _INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
            try:
                os.rename(self._partial, self.folder)
            except OSError:
                if not (self.folder / _INDEX).is_file():
                    raise
        shutil.rmtree(self._partial, ignore_errors=True)


class FeatureRows(Dataset[dict[str, Any]]):
    """Rows of a table as the features of frozen towers, in place of :class:`~mmfusion.data.MultimodalDataset`.

    Args:
        ids: (rows,) row ids.
        labels: (rows,) int64 positions of the classes, -1 where a row has no label.
        views: modality -> its stores, one per augmented view (one alone without augmentation), each with the position
            there of every row; epoch e reads view e mod their number.

    Attributes:
        ids: as given.
        labels: as given.

    Raises:
        ValueError: a store lacks rows.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        labels: NDArray[np.int64],
        views: Mapping[str, Sequence[tuple[FeatureStore, NDArray[np.int64]]]],
    ) -> None:
        self.ids = ids
        self.labels = labels
        self._views = dict(views)
        for side, stores in self._views.items():
            for store, places in stores:
                if len(places) != len(ids) or places.max(initial=-1) >= len(store):
                    raise ValueError(
                        f"{len(ids)} rows cannot be read at {len(places)} places of {len(store)} {side} features."
                    )
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch comes, for the augmented view."""
        self._epoch.fill_(int(epoch))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Features of each modality, whether it is there, the label and the position."""
        i = range(len(self))[i]
        epoch = int(self._epoch)
        item: dict[str, Any] = {"index": i}
        for side, stores in self._views.items():
            store, places = stores[epoch % len(stores)]
            features = store[places[i]]
            item[f"{side}_present"] = bool(features.pop("present"))
            item[f"{side}_features"] = features
        if self.labels[i] >= 0:
            item["labels"] = int(self.labels[i])
        return item

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """A batch: ``<modality>_features``, name -> (B, ...), ``<modality>_present``, ``labels`` and ``index`` (B,)."""
        batch: dict[str, Any] = {}
        for side, stores in self._views.items():
            features = [item[f"{side}_features"] for item in items]
            batch[f"{side}_features"] = stores[0][0].collate(features)
            batch[f"{side}_present"] = torch.tensor([item[f"{side}_present"] for item in items])
        if all("labels" in item for item in items):
            batch["labels"] = torch.tensor([item["labels"] for item in items])
        batch["index"] = torch.tensor([item["index"] for item in items])
        return batch
