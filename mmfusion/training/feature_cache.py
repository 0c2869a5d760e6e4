"""Cached features of frozen towers, shared by runs with the same towers, transforms and rows."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from mmfusion.data import CaseTable, MultimodalDataset, Processor
from mmfusion.inference.predictor import Predictor
from mmfusion.progress import progress
from mmfusion.training.features import FeatureRows, FeatureStore, write_features

#: Incremented when the stored values or their computation change, which invalidates older stores.
FORMAT = 1


class FeatureCache:
    """Feature stores in one folder: one per modality and table, and one per augmented view of the training rows.

    The key of a store covers everything its values depend on: weights of the frozen backbone, keywords of its tower,
    image transform (or tokenizer and template), and the rows with sizes and times of their image files. Parts trained
    on the features (fusion block, head, aggregator, loss) are not in the key, so runs that differ in them share it.

    Args:
        folder: Folder of all stores; several runs and experiments may share it.
        predictor: A ``FusionModel`` with frozen encoders, and its processor.
        cases: The whole table with all splits: its rows are encoded together, so that other splits or folds of them
            can reuse their features.
        batch_size: Number of rows encoded at once.
        workers: Loader processes.

    Raises:
        ValueError: An encoder is not frozen, or its tower has no separate ``encode`` and ``assemble``.
    """

    def __init__(
        self, folder: str | Path, predictor: Predictor, cases: CaseTable, *, batch_size: int = 64, workers: int = 0
    ) -> None:
        self.folder, self.cases = Path(folder).expanduser(), cases
        self.model, self.channels_last = predictor.network(), predictor.channels_last
        self._loading: dict[str, Any] = {"batch_size": batch_size, "num_workers": workers}
        self._processors = {
            "image": replace(predictor.processor, tokenizer=None, text_template=None, table=None),
            "text": replace(predictor.processor, image_size=None, table=None),
        }
        # columns are not cached: their tower is trained and has no frozen part
        self._live = replace(predictor.processor, image_size=None, tokenizer=None, text_template=None)
        self._stored = [side for side, tower in self.model.towers.items() if not tower.from_scratch]
        self._weights: dict[str, str] = {}
        for side in self._stored:
            tower = self.model.towers[side]
            if not tower.can_encode or side not in self._processors:
                why = "has no encode for images or texts, so its features cannot be cached"
                raise ValueError(f"The {side} tower {type(tower).__name__} {why}; unset train.feature_cache.")
            if any(p.requires_grad for p in tower.backbone.parameters()):
                how = "set train.freeze_encoders true, or unset train.feature_cache."
                raise ValueError(f"The {side} encoder is not frozen, so its features change; {how}")
            self._weights[side] = _digest_of_weights(tower.backbone)

    def rows(self, cases: CaseTable, *, augment: str | None = None, views: int = 1, seed: int = 0) -> FeatureRows:
        """Features of some rows of the table, in order; missing ones are computed.

        With a training augmentation there are ``views`` augmented versions of each image, drawn from ``seed``.

        Raises:
            ValueError: An image cannot be decoded.
            KeyError: A row is not in the table.
        """
        stores = {}
        for side in self._stored:
            # augmented views are for training rows
            augmented = augment is not None and side == "image"
            table = cases if augmented else self.cases
            rows = MultimodalDataset(table, self._processors[side], augment=augment if augmented else None, seed=seed)
            places = _places(cases, table)
            stores[side] = [(self._store(side, table, rows, view), places) for view in range(views if augmented else 1)]
        live = MultimodalDataset(cases, self._live)
        columns = live if self._live.table is not None else None
        return FeatureRows(live.ids, live.labels, stores, columns, self._live.question)

    def _store(self, side: str, cases: CaseTable, rows: MultimodalDataset, view: int) -> FeatureStore:
        about = {
            "format": FORMAT,
            "tower": self._description(side),
            "weights": self._weights[side],
            "processor": _description_of(self._processors[side], side),
            "augment": None if rows.augment is None else [rows.augment, rows.seed, view],
            "rows": _digest_of_rows(side, cases, rows),
        }
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:24]
        folder = self.folder / f"{side}-{key}"
        if not folder.is_dir():
            rows.set_epoch(view)
            write_features(folder, about, self._encode(side, rows), self.model.towers[side].padded)
        return FeatureStore(folder)

    def _description(self, side: str) -> dict[str, Any]:
        """The part of the model's configuration that defines the frozen part of a tower."""
        config, tower = self.model.config, self.model.towers[side]
        names = {"image": ("image_encoder", "image_tower", "image_args", "stem"), "text": ("text_tower", "text_args")}
        return {name: config[name] for name in names[side]} | {"levels": list(tower.level_dims)}

    def _encode(self, side: str, rows: MultimodalDataset) -> Iterator[dict[str, np.ndarray]]:
        """Apply the frozen part of a tower to all rows, batch by batch."""
        loader: DataLoader[Any] = DataLoader(rows, collate_fn=self._processors[side].collate, **self._loading)
        tower, was_training = self.model.towers[side], self.model.training
        device = next(tower.backbone.parameters()).device
        bar = progress(f"Encoding {side}s", len(rows))
        self.model.eval()
        try:
            with torch.inference_mode(), bar:
                for batch in loader:
                    inputs = {name: value.to(device) for name, value in batch.items()}
                    if self.channels_last and side == "image" and inputs["pixel_values"].ndim == 4:
                        inputs["pixel_values"] = inputs["pixel_values"].to(memory_format=torch.channels_last)
                    present = inputs[f"{side}_present"]
                    encoded = {"present": present, **tower.encode(**tower.shown(tower.select(inputs), present))}
                    yield {name: value.cpu().numpy() for name, value in encoded.items()}
                    bar.update(len(present))
        finally:
            self.model.train(was_training)


def _places(rows: CaseTable, table: CaseTable) -> NDArray[np.int64]:
    """Positions of rows in their table."""
    places = table.frame.index.get_indexer(rows.frame.index)
    if (places < 0).any():
        raise KeyError(f"{rows.source} has rows that are not in the table whose features are cached.")
    return places


def _digest_of_weights(module: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _description_of(processor: Processor, side: str) -> dict[str, Any]:
    """The processor settings that the tensors of a modality depend on."""
    values = processor.to_dict()
    if side == "image":
        names = ("image_size", "mean", "std", "interpolation", "crop_pct", "crop_mode", "window", "slice", "slices")
        return {name: values.get(name) for name in names}
    assert processor.tokenizer is not None
    # calls leave their truncation and padding settings in the tokenizer
    tokenizer = processor.tokenizer.backend_tokenizer
    tokenizer.no_truncation()
    tokenizer.no_padding()
    digest = hashlib.sha256(tokenizer.to_str().encode()).hexdigest()
    return {"max_length": values["max_length"], "tokenizer": digest}


def _digest_of_rows(side: str, cases: CaseTable, rows: MultimodalDataset) -> str:
    """Hash of texts, or of image files (path, size and modification time), in the order of the rows."""
    digest = hashlib.sha256()
    if side == "text":
        for text in rows.texts:
            digest.update(json.dumps(text).encode())
        return digest.hexdigest()
    root = cases.image_root
    digest.update(str(root.resolve()).encode())
    for row, id_, images in cases.frame[["id", "image"]].itertuples(name=None):
        digest.update(json.dumps([id_, images, (cases.regions or {}).get(row)]).encode())
        for image in (images,) if isinstance(images, str) or images is None else images:
            if image is not None:
                status = (root / image).stat()
                digest.update(f"{status.st_size} {status.st_mtime_ns}".encode())
    return digest.hexdigest()
