"""``embed(config)``: image embeddings, one file per case, in the format of ``dataset.bag_column``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmfusion.data import CaseTable, Processor, check_images, read_cases
from mmfusion.data.bags import KEY
from mmfusion.data.formats import file_name
from mmfusion.files import sole_writer, written_table, written_whole
from mmfusion.inference.config import EmbedConfig
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.rows import AllRows, none_readable
from mmfusion.inference.stream import batches
from mmfusion.progress import tracked
from mmfusion.towers.image import Backbone
from mmfusion.towers.several import each_present

#: Images or slices (B, ..., 3, H, W) of a batch -> vectors (B, N, D) and their mask (B, N).
Encode = Callable[[Mapping[str, Tensor]], tuple[Tensor, Tensor]]

TABLE, COLUMN = "bags.csv", "bag"


@dataclass(frozen=True)
class Embedded:
    """Result of ``mmfusion embed``.

    Attributes:
        folder: Folder of the files, with the table ``bags.csv``.
        rows: Number of cases.
        width: Width of the vectors; 0 if no case could be read.
        unreadable: Number of cases that could not be read; the column ``error`` has the reason.
        reason: Reason of the first of them.
    """

    folder: Path
    rows: int
    width: int
    unreadable: int
    reason: str | None = None

    @property
    def failure(self) -> str:
        """Why the command fails: every case has an error; else empty."""
        return none_readable(self.rows, self.unreadable, self.reason)

    def summary(self) -> str:
        """Number of cases, width and folder, and how to train on them."""
        failed = f"; {self.unreadable:,} could not be read (see the column error)" if self.unreadable else ""
        use = f"--data {self.folder} --dataset.bag_column {COLUMN} --model.image_encoder features"
        return f"{self.rows:,} bags of {self.width:,}-wide vectors in {self.folder}{failed}\ntrain on them with {use}"


@sole_writer
def embed(config: EmbedConfig) -> Embedded:
    """Encode the images of a data set; write one file of vectors per case and a table of them.

    A single image gives one vector, slices or views give one vector each, in half precision. The table also has the
    other columns of the cases, so that a model can be trained on the folder.

    Raises:
        FileNotFoundError: The data, model or encoder do not exist.
        FileExistsError: The folder already has a table of bags.
        ValueError: The model uses no images, or does not match the image layout of the data.
        ImportError: ``h5`` is requested and h5py is not installed.
    """
    folder, write = Path(config.output), partial(_WRITERS[config.format], dtype=np.dtype(config.dtype))
    if config.format == "h5":
        _h5py()
    if (folder / TABLE).exists():
        raise FileExistsError(f"{folder} already has {TABLE}; choose another --output.")
    cases = read_cases(config.data, config.dataset, require_labels=False)
    encode, processor = _of_model(config, cases) if config.model is not None else _of_encoder(config)
    print(f"embedding {config.data} with {config.model or config.encoder}")
    folder.mkdir(parents=True, exist_ok=True)
    classes = sorted(set(cases.frame["label"].dropna()))
    rows = AllRows(check_images(cases), replace(processor, labels=classes), refuse_empty=True)
    names: list[str | None] = []
    errors: list[str | None] = []
    taken: set[str] = set()
    width = 0
    stream = tracked(_stream(rows, encode, config), "Embedding", len(rows))
    for id_, (vectors, error) in zip(rows.ids, stream, strict=True):
        name = None
        if vectors is not None:
            name, width = f"{file_name(id_, taken)}.{config.format}", vectors.shape[1]
            write(folder / name, vectors)
        names.append(name)
        errors.append(error)
    _write_table(folder / TABLE, cases, names, errors)
    failed = [error for error in errors if error is not None]
    return Embedded(folder, len(names), width, len(failed), next(iter(failed), None))


def _of_model(config: EmbedConfig, cases: CaseTable) -> tuple[Encode, Processor]:
    predictor = Predictor.from_pretrained(str(config.model))
    network = predictor.network()
    tower = network.image_tower
    if network.image_layout not in ("image", "slices", "views"):
        raise ValueError(f"{config.model} uses no images and cannot embed them.")
    if cases.layout not in ("image", network.image_layout):
        raise ValueError(f"The data have {cases.layout}, but {config.model} expects {network.image_layout}.")
    backbone = next((module for module in tower.modules() if isinstance(module, Backbone)), None)
    if backbone is None:
        raise ValueError(f"{type(tower).__name__} has no timm or transformers image encoder to embed with.")
    device = next(backbone.parameters()).device

    def encode(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        inputs = {name: batch[name].to(device) for name in tower.inputs if name in batch}
        if "vectors" in tower.padded:  # slices, with the stem that the encoder was trained with
            encoded = tower.encode(**inputs)
            return encoded["vectors"], encoded["mask"]
        return _vectors(backbone, inputs)

    return encode, replace(predictor.processor, tokenizer=None, text_template=None, table=None)


def _of_encoder(config: EmbedConfig) -> tuple[Encode, Processor]:
    backbone = Backbone(str(config.encoder), "default").eval()
    backbone.to(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    cfg = backbone.model.pretrained_cfg
    shown = {name: cfg[name] for name in ("mean", "std", "interpolation", "crop_pct") if cfg.get(name) is not None}
    size = config.image_size or (cfg.get("input_size") or (3, 224, 224))[-1]
    device = next(backbone.parameters()).device

    def encode(batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return _vectors(backbone, {name: value.to(device) for name, value in batch.items()})

    return encode, Processor(image_size=size, **shown)


def _vectors(backbone: Backbone, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The pooled vector of each image present."""
    pixels = inputs["pixel_values"]
    images = pixels.unsqueeze(1) if pixels.ndim == 4 else pixels
    mask = next((inputs[name].bool() for name in ("slice_mask", "view_mask") if name in inputs), None)
    mask = images.new_ones(images.shape[:2], dtype=torch.bool) if mask is None else mask
    (vectors,) = each_present(lambda x: (backbone(x).pooled,), images, mask, backbone)
    return vectors, mask


def _stream(rows: AllRows, encode: Encode, config: EmbedConfig) -> Iterator[tuple[NDArray[Any] | None, str | None]]:
    """Vectors (N, D) or error of each row, in order."""
    for batch, errors in batches(rows, rows.collate, batch_size=config.batch_size, workers=config.workers):
        found: Iterator[NDArray[Any]] = iter(())
        if batch is not None:
            with torch.inference_mode():
                vectors, mask = encode(batch)
            found = (v[m].float().cpu().numpy() for v, m in zip(vectors, mask, strict=True))
        for error in errors:
            yield (None, error) if error is not None else (next(found), None)


def _write_table(path: Path, cases: CaseTable, names: list[str | None], errors: list[str | None]) -> None:
    """Write the cases with the file of each instead of its images."""
    frame = cases.frame.drop(columns=["image"]).dropna(axis="columns", how="all")
    with written_table(path) as table:
        has_errors = any(error is not None for error in errors)
        table.writerow([COLUMN, *frame.columns, *["error"] * has_errors])
        for name, cells, error in zip(names, frame.itertuples(index=False, name=None), errors, strict=True):
            row = (name, *cells, *[error] * has_errors)
            table.writerow(["" if cell is None else cell for cell in row])


def _h5py() -> Any:
    try:
        import h5py
    except ImportError:
        raise ImportError('Writing h5 files needs h5py: pip install "mmfusion[bags]", or use --format npz.') from None
    return h5py


def _write_h5(path: Path, vectors: NDArray[Any], dtype: np.dtype[Any]) -> None:
    with written_whole(path) as partial_path, _h5py().File(partial_path, "w") as file:
        file[KEY] = vectors.astype(dtype)


def _write_npz(path: Path, vectors: NDArray[Any], dtype: np.dtype[Any]) -> None:
    with written_whole(path) as partial_path:
        np.savez(partial_path, allow_pickle=False, **{KEY: vectors.astype(dtype)})


def _write_safetensors(path: Path, vectors: NDArray[Any], dtype: np.dtype[Any]) -> None:
    from safetensors.numpy import save_file

    with written_whole(path) as partial_path:
        save_file({KEY: vectors.astype(dtype)}, partial_path)


_WRITERS: dict[str, Callable[..., None]] = {"h5": _write_h5, "npz": _write_npz, "safetensors": _write_safetensors}
