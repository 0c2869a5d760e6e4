"""Features of frozen towers on disk: written once, read through memory maps, batched like encoded cases."""

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
    """Named arrays with one entry per row, memory-mapped: opening it reads nothing, and processes share its pages.

    Args:
        folder: what :func:`write_features` wrote.

    Attributes:
        about: what the features were made of, as it was written.
        padded: names of the arrays whose entries differ in length.

    Raises:
        FileNotFoundError: there is no store.
        ValueError: a file has another size than the index says.
    """

    def __init__(self, folder: str | Path) -> None:
        folder = Path(folder)
        if not (folder / _INDEX).is_file():
            raise FileNotFoundError(f"{folder} holds no features (no {_INDEX}).")
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
                raise ValueError(f"{path} is not what {folder / _INDEX} says; remove the folder to compute it anew.")
            self._arrays[name] = np.memmap(path, dtype, "r", shape=shape) if count else np.zeros(shape, dtype)

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, row: int) -> dict[str, NDArray[Any]]:
        """The arrays of one row; those that are padded in a batch are as long as the row."""
        span = slice(self._offsets[row], self._offsets[row + 1])
        return {name: array[span if name in self.padded else row] for name, array in self._arrays.items()}

    def collate(self, rows: Sequence[Mapping[str, NDArray[Any]]]) -> dict[str, Tensor]:
        """Rows as tensors (B, ...), padded with zeros (False) to the longest of them."""
        # copied, for the maps cannot be written to
        batch = {name: [torch.from_numpy(np.array(row[name])) for row in rows] for name in rows[0]}
        return {n: pad_sequence(x, batch_first=True) if n in self.padded else torch.stack(x) for n, x in batch.items()}


def write_features(
    folder: Path, about: Mapping[str, Any], batches: Iterable[Mapping[str, NDArray[Any]]], padded: Sequence[str] = ()
) -> None:
    """Write a :class:`FeatureStore`, batch by batch, in bounded memory.

    It appears under its name when it is whole; one that another process wrote meanwhile stays.

    Args:
        folder: Folder of the store.
        about: Plain values that say what the features are made of.
        batches: Name -> (B, ...).
        padded: Names of the arrays (B, L, ...) that are padded along L; ``mask`` (B, L) is among them where there are
            any, and tells the length of a row: up to its last True, at least 1.

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
    """Rows of a table as the features of frozen towers, in place of :class:`~mmfusion.data.MultimodalDataset`.

    Args:
        ids: (rows,) row ids.
        labels: (rows,) int64 positions of the classes, -1 where a row has no label; of other tasks (rows, ...).
        views: modality -> its stores, one per augmented view (one alone without augmentation), each with the position
            there of every row; epoch e reads view e mod their number.
        live: The same rows with their columns, whose tower is trained; None without columns.
        task: What the labels are; None takes ``multiclass``.

    Raises:
        ValueError: a store lacks rows.
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
                        f"{len(ids)} rows cannot be read at {len(places)} places of {len(store)} {side} features."
                    )
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch comes, for the augmented view."""
        self._epoch.fill_(int(epoch))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """Features of each modality, whether it is there, and the label."""
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
        """A batch: ``<modality>_features``, name -> (B, ...), ``<modality>_present`` and ``labels`` (B,)."""
        kept = [f"{side}_present" for side in self._views]
        kept += ["labels"] if all("labels" in item for item in items) else []
        batch: dict[str, Any] = {}
        if self._live is not None:
            batch = self._live.collate([{name: item[name] for name in TABLE_INPUTS if name in item} for item in items])
        batch |= {name: torch.tensor([item[name] for item in items]) for name in kept}
        for name, stores in ((f"{side}_features", stores) for side, stores in self._views.items()):
            batch[name] = stores[0][0].collate([item[name] for item in items])
        return batch
