"""Cases as a torch data set."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from mmfusion import registry
from mmfusion.data.cases import CaseTable
from mmfusion.data.notices import InputNotices, note_texts
from mmfusion.data.processor import Processor
from mmfusion.data.table_columns import EncodedTable
from mmfusion.images.augmentations import row_rng


class MultimodalDataset(Dataset[dict[str, Any]]):
    """Rows of a :class:`CaseTable` as encoded cases; batch them with :meth:`collate`.

    Augmentation of a row depends only on (``seed``, epoch, row id), not on the order of rows or any global generator.
    Unless :meth:`set_epoch` sets the epoch, it is the number of earlier draws of the row, so that each pass over the
    rows is augmented differently. Epoch and counts are in shared memory, so that all loader workers see them.
    Multi-process training and resumed runs need :meth:`set_epoch`. transformers' Trainer calls it through accelerate
    in a single process, but not if a sampler with its own ``set_epoch`` is sharded over several processes; then call
    it from a callback.

    The columns are stored as flat arrays without a Python object per row, so memory does not grow with epochs or, by
    reference counts, in forked workers.

    Args:
        cases: Table without unresolved problems.
        processor: Converts cases to tensors.
        augment: Name of an augmentation, such as ``report``; None for evaluation.
        seed: Seed of the augmentation.
        image_sizes: Image size of each epoch, overriding the processor's, which applies to all later epochs.

    Attributes:
        ids: (rows,) array of row ids.
        labels: (rows,) int64 class indices, -1 for rows without a label; for other tasks (rows, ...) as returned by
            :meth:`mmfusion.task.Task.encoded`.
        layout: Layout of the table: ``image``, ``slices``, ``views`` or ``bags``.

    Raises:
        ValueError: The table has unresolved problems, or a label or augmentation is unknown.
        FileNotFoundError: The image root does not exist.
    """

    def __init__(
        self,
        cases: CaseTable,
        processor: Processor,
        *,
        augment: str | None = None,
        seed: int = 0,
        image_sizes: Sequence[int] = (),
    ) -> None:
        # keep the function, since a worker process may not have imported the module that registers its name
        self._augmentation = registry.get("augmentation", augment) if augment is not None else None
        bad = [problem for problem in cases.problems if not problem.warning]
        if bad:
            raise ValueError(f"{cases.source} has {len(bad)} unresolved problems; call cases.resolve() first.")
        if processor.image_size is not None and not cases.image_root.is_dir():
            raise FileNotFoundError(f"The image root {cases.image_root} does not exist.")
        if cases.slice is not None or cases.slices is not None:
            processor = replace(processor, slice=cases.slice, slices=cases.slices)
        self.processor, self.augment, self.seed = processor, augment, seed
        self._image_sizes = tuple(image_sizes)
        self.image_root, self.layout, frame = cases.image_root, cases.layout, cases.frame
        self.ids = _texts(frame["id"].tolist())
        self.labels = processor.question.encoded(frame["label"].tolist())
        self._labelled = processor.question.known(self.labels)
        images = frame["image"].tolist()
        self._several = not cases.one_path
        if self._several:
            images = [tuple(paths or ()) for paths in images]
            self._starts = np.cumsum([0, *map(len, images)])
            images = [path for paths in images for path in paths]
        self._images = _texts(images)
        self._regions: np.ndarray | None = None
        if cases.regions is not None:
            nowhere = (np.nan,) * 4
            self._regions = np.array([cases.regions.get(row, nowhere) for row in frame.index], dtype=np.float64)
        columns = [name for name in frame.columns if name != "image"]
        rows = frame[columns].itertuples(index=False, name=None) if processor.tokenizer is not None else ()
        self._text = _texts([processor.text_of(dict(zip(columns, row, strict=True))) for row in rows])
        self._table: EncodedTable | None = None
        if processor.table is not None:
            self._table = processor.table.encode_columns(frame, processor.missing_values)
        self._epoch = torch.full((), -1, dtype=torch.int64).share_memory_()  # negative: not set
        self._draws = torch.zeros(len(self.ids) if augment else 0, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def texts(self) -> list[str | None]:
        """The text of each row; empty if the processor reads no text."""
        return self._text.tolist()

    def notices(self) -> InputNotices:
        """Counts of inputs that the model has not learned, such as words unknown to its tokenizer."""
        notices = InputNotices()
        if self._table is not None:
            notices.update(self._table.notices)
        else:
            notices.see(len(self))
        note_texts(notices, self.texts, self.processor.tokenizer, self.processor.max_length)
        return notices

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate rows into a batch; see :meth:`Processor.collate`."""
        return self.processor.collate(items)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, for augmentation and image size; draws are no longer counted."""
        self._epoch.fill_(int(epoch))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The encoded case at a position; see :meth:`Processor.encode`.

        Raises:
            FileNotFoundError: The image was removed after it was checked.
            ValueError: The image cannot be decoded; the message names it.
        """
        i, epoch = range(len(self))[i], int(self._epoch)
        size = self._image_sizes[epoch] if 0 <= epoch < len(self._image_sizes) else None
        return self.processor.encode(
            **self._images_of(i),
            text=self._text[i] if len(self._text) else None,
            table=None if self._table is None else (self._table.numeric_values[i], self._table.category_ids[i]),
            label=self.labels[i] if self._labelled[i] else None,
            augment=self._augmentation,
            rng=row_rng(self.seed, self._epoch_of(i), str(self.ids[i])) if self.augment else None,
            image_size=size,
        )

    def _epoch_of(self, i: int) -> int:
        """The epoch if set, else the number of earlier draws of the row; counts this draw."""
        if (epoch := int(self._epoch)) >= 0:
            return epoch
        self._draws[i] += 1
        return int(self._draws[i]) - 1

    def _images_of(self, i: int) -> dict[str, Any]:
        """Paths of the image, slices or views of a row, and its region of interest."""
        if self._several:
            paths = self._images[self._starts[i] : self._starts[i + 1]]
            return {self.layout: [self.image_root / path if path is not None else None for path in paths]}
        image = self._images[i]
        path = self.image_root / image if image is not None else None
        images: dict[str, Any] = {"bag" if self.layout == "bags" else "image": path}
        if self._regions is not None:
            region = self._regions[i]
            images["roi"] = "centre" if np.isnan(region[0]) else tuple(region.tolist())
        return images


def _texts(values: list[str | None]) -> np.ndarray:
    return np.array(values, dtype=np.dtypes.StringDType(na_object=None))
