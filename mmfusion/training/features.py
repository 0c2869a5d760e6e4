"""Features of frozen towers on disk: written once, memory-mapped, and collated like encoded cases."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset

from mmfusion.data import MultimodalDataset
from mmfusion.data.table_columns import TABLE_INPUTS
from mmfusion.files import read_json, write_json
from mmfusion.task import DEFAULT, Task, task_named

_INDEX, _OFFSETS = "index.json", "offsets.npy"


class FeatureStore:
    """Named, memory-mapped arrays with one entry per row: opening reads nothing, and processes share memory pages.

    Args:
        folder: Folder written by :func:`write_features`.

    Attributes:
        about: Description of the features, as written.
        padded: Names of the arrays with entries of varying length.

    Raises:
        FileNotFoundError: There is no store.
        ValueError: A file has another size than in the index.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / _INDEX).is_file():
            raise FileNotFoundError(f"{folder} has no features (no {_INDEX}).")
        index = read_json(folder / _INDEX)
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
                raise ValueError(f"{path} does not match {folder / _INDEX}; delete the folder to recompute it.")
            self._arrays[name] = np.memmap(path, dtype, "r", shape=shape) if count else np.zeros(shape, dtype)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> dict[str, NDArray[Any]]:
        """The arrays of one row; padded ones have the row's own length."""
        span = slice(self._offsets[row], self._offsets[row + 1])
        return {name: array[span if name in self.padded else row] for name, array in self._arrays.items()}

    def collate(self, rows: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Collate rows to tensors (B, ...), padded with zeros (False) to the longest."""
        # copied, since the maps are read-only
        batch = {name: [torch.from_numpy(np.array(row[name])) for row in rows] for name in rows[0]}
        return {n: pad_sequence(x, batch_first=True) if n in self.padded else torch.stack(x) for n, x in batch.items()}


def write_features(
    folder: Path, about: Mapping[str, Any], batches: Iterable[Mapping[str, NDArray[Any]]], padded: Sequence[str] = ()
) -> None:
    """Write a :class:`FeatureStore` batch by batch in bounded memory.

    The store appears under its name when complete; one that another process wrote meanwhile is kept.

    Args:
        folder: Folder of the store.
        about: Plain values that describe the features.
        batches: Name -> (B, ...).
        padded: Names of the arrays (B, L, ...) padded along L; they include ``mask`` (B, L), which gives the length of
            a row: up to its last True, at least 1.

    Raises:
        ValueError: The arrays of two batches differ in type or shape.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    offsets = [0]
    arrays: dict[str, Any] = {}
    files: dict[str, Any] = {}
    try:
        with ExitStack() as stack:
            for encoded in batches:
                lengths = np.ones(len(next(iter(encoded.values()))), dtype=np.int64)
                if padded:
                    mask = encoded["mask"]
                    lengths = np.where(mask.any(axis=1), mask.shape[1] - np.argmax(mask[:, ::-1], axis=1), 1)
                offsets += (offsets[-1] + np.cumsum(lengths)).tolist()
                for name, batch in encoded.items():
                    layout = {"dtype": batch.dtype.str, "shape": list(batch.shape[2 if name in padded else 1 :])}
                    if name not in arrays:
                        arrays[name] = layout
                        files[name] = stack.enter_context((partial / f"{name}.bin").open("wb"))
                    if arrays[name] != layout:
                        raise ValueError(
                            f"The features {name!r} changed from {arrays[name]} to {layout} between batches."
                        )
                    real = batch[np.arange(batch.shape[1]) < lengths[:, None]] if name in padded else batch
                    files[name].write(real.tobytes())
        np.save(partial / _OFFSETS, np.array(offsets, dtype=np.int64))
        index = {"rows": len(offsets) - 1, "padded": list(padded), "arrays": arrays, "about": dict(about)}
        write_json(partial / _INDEX, index)
        try:
            os.rename(partial, folder)
        except OSError:
            if not (folder / _INDEX).is_file():
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class FeatureRows(Dataset[dict[str, Any]]):
    """Rows of a table as features of frozen towers, instead of :class:`~mmfusion.data.MultimodalDataset`.

    Args:
        ids: (rows,) row ids.
        labels: (rows,) int64 class indices, -1 for rows without a label; for other tasks (rows, ...).
        views: Modality -> its stores, one per augmented view (a single one without augmentation), each with the
            position of every row in it; epoch e uses view e mod their number.
        live: The same rows with columns, whose tower is trained; None without columns.
        task: Task of the labels; None means ``multiclass``.

    Raises:
        ValueError: A store has too few rows.
    """

    def __init__(
        self,
        ids: NDArray[Any],
        labels: NDArray[Any],
        views: Mapping[str, Sequence[tuple[FeatureStore, NDArray[np.int64]]]],
        live: MultimodalDataset | None = None,
        task: Task | None = None,
    ) -> None:
        self.ids, self.labels, self._live = ids, labels, live
        self._task = task or task_named(DEFAULT)
        self._labelled = self._task.known(labels)
        self._views = dict(views)
        for side, stores in self._views.items():
            for store, places in stores:
                if len(places) != len(ids) or places.max(initial=-1) >= len(store):
                    raise ValueError(
                        f"{len(ids)} rows do not match {len(places)} positions in {len(store)} {side} features."
                    )
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, which selects the augmented view."""
        self._epoch.fill_(int(epoch))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Features and presence of each modality, and the label."""
        i = range(len(self))[i]
        item: dict[str, Any] = dict(self._live[i]) if self._live is not None else {}
        for side, stores in self._views.items():
            store, places = stores[int(self._epoch) % len(stores)]
            features = store[places[i]]
            item |= {f"{side}_present": bool(features.pop("present")), f"{side}_features": features}
        if self._labelled[i]:
            item["labels"] = self._task.target(self.labels[i])
        return item

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Collate to ``<modality>_features``, name -> (B, ...), ``<modality>_present`` and ``labels`` (B,)."""
        kept = [f"{side}_present" for side in self._views]
        kept += ["labels"] if all("labels" in item for item in items) else []
        batch: dict[str, Any] = {}
        if self._live is not None:
            batch = self._live.collate([{name: item[name] for name in TABLE_INPUTS if name in item} for item in items])
        batch |= {name: torch.tensor([item[name] for item in items]) for name in kept}
        for name, stores in ((f"{side}_features", stores) for side, stores in self._views.items()):
            batch[name] = stores[0][0].collate([item[name] for item in items])
        return batch
