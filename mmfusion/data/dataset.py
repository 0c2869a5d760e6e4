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

    Augmentation of a row depends on (``seed``, epoch, row id) alone: the order of rows does not matter, and no global
    generator is touched. Unless :meth:`set_epoch` tells the epoch, it is the number of times that the row was drawn
    before, so that each pass over the rows is augmented anew. Epoch and counts lie in shared memory, where all loader
    workers see them. Several processes, or a resumed run, need :meth:`set_epoch`. transformers' Trainer calls it
    through accelerate in one process, but not where a sampler with a ``set_epoch`` of its own is sharded over
    several: call it from a callback there.

    The columns are held as flat arrays, without a Python object a row: memory grows neither with epochs nor, by
    reference counts, in forked workers.

    Args:
        cases: Table without unresolved problems.
        processor: How a case becomes tensors.
        augment: Name of an augmentation, such as ``report``; None for evaluation.
        seed: Seed of the augmentation.
        image_sizes: Side of the images in each epoch, in place of the processor's, which is that of later epochs.

    Attributes:
        ids: (rows,) array of row ids.
        labels: (rows,) int64 positions of the classes, -1 where a row has no label; of other tasks (rows, ...), as
            :meth:`mmfusion.task.Task.encoded` has them.
        layout: Layout of the table: ``image``, ``slices``, ``views`` or ``bags``.

    Raises:
        ValueError: Unresolved problems, an unknown label or augmentation.
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
        # the function itself, since a worker process may not have imported the module that registers its name
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
        self._epoch = torch.full((), -1, dtype=torch.int64).share_memory_()  # below 0: not told
        self._draws = torch.zeros(len(self.ids) if augment else 0, dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def texts(self) -> list[str | None]:
        """The text of each row; empty where the processor reads none."""
        return self._text.tolist()

    def notices(self) -> InputNotices:
        """What of the rows the processor's model has not learned, such as words that its tokenizer does not know."""
        notices = InputNotices()
        if self._table is not None:
            notices.update(self._table.notices)
        else:
            notices.see(len(self))
        note_texts(notices, self.texts, self.processor.tokenizer, self.processor.max_length)
        return notices

    def collate(self, items: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of rows; see :meth:`Processor.collate`."""
        return self.processor.collate(items)

    def set_epoch(self, epoch: int) -> None:
        """Tell which epoch comes, from 0, for augmentation and size of the images; draws are no longer counted."""
        self._epoch.fill_(int(epoch))

    def __getitem__(self, i: int) -> dict[str, Any]:
        """The encoded case at a position; see :meth:`Processor.encode`.

        Raises:
            FileNotFoundError: The image has gone since it was checked.
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
        """The epoch, or the number of earlier draws of the row; this one is counted."""
        if (epoch := int(self._epoch)) >= 0:
            return epoch
        self._draws[i] += 1
        return int(self._draws[i]) - 1

    def _images_of(self, i: int) -> dict[str, Any]:
        """Image, slices or views of a row as paths, and its region of interest."""
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
