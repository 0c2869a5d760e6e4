"""Familiarity of a case: its distance from the training rows per modality, relative to the validation rows.

Only a mean, the main directions of a shrunk covariance and quantiles of distances are saved, no patient's own vector.
Images have two parts: appearance (brightness, contrast, color, sharpness), which detects other kinds of images that the
features of a trained encoder miss, and the pooled features of the tower.

Source: Lee et al., A Simple Unified Framework for Detecting Out-of-Distribution Samples and Adversarial Attacks,
NeurIPS 2018 (Mahalanobis distance, here without classes); Ledoit and Wolf, A Well-Conditioned Estimator for
Large-Dimensional Covariance Matrices, Journal of Multivariate Analysis 2004.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from torch import Tensor, nn

from mmfusion.artifacts.names import FAMILIARITY
from mmfusion.data.table_columns import FAR, UNSEEN, TableColumns
from mmfusion.files import written_whole
from mmfusion.outputs import Features

#: Familiarity below which a modality is reported as unlike the training data.
USUAL = 0.05

#: Added to contrasts before taking the logarithm, in units of the normalized image.
DARK = 1e-3

#: Number of images processed together.
AT_ONCE = 4


@dataclass(frozen=True)
class Part:
    """Distribution of one kind of vectors over the training rows.

    Attributes:
        mean: (D,).
        scale: (D,) standard deviations, used to standardize.
        directions: (D, K) main directions of the covariance.
        variances: (K,) variances along the directions.
        quantiles: (L,) increasing quantiles of the validation distances.
        rest: Variance along all other directions; 0 if there are none.
    """

    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    directions: NDArray[np.float32]
    variances: NDArray[np.float32]
    quantiles: NDArray[np.float32]
    rest: float

    def distance(self, vectors: NDArray[Any]) -> NDArray[np.float32]:
        """(N,) distances of vectors (N, D)."""
        centred = (np.asarray(vectors, dtype=np.float32) - self.mean) / self.scale
        along = centred @ self.directions
        squared = (along**2 / self.variances).sum(axis=1)
        if self.rest > 0:
            squared = squared + ((centred**2).sum(axis=1) - (along**2).sum(axis=1)).clip(0) / self.rest
        return np.sqrt(squared)

    def level(self, vectors: NDArray[Any], levels: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) share of validation rows at least as far away; ``levels`` (L,) are those of the quantiles.

        Beyond the last quantile it decreases with the square of the distance.
        """
        distance, last = self.distance(vectors), max(float(self.quantiles[-1]), 1e-12)
        inner = np.exp(np.interp(distance, self.quantiles, np.log(levels)))
        return np.where(distance > last, levels[-1] * (last / np.maximum(distance, last)) ** 2, inner).astype(
            np.float32
        )


@dataclass(frozen=True)
class Familiarity:
    """Summary of the training rows for detecting unfamiliar cases.

    Attributes:
        parts: ``modality.part`` -> distribution of its vectors.
        levels: (L,) shares of the validation rows, decreasing from 1.
        rows: Number of training rows used.
    """

    parts: Mapping[str, Part]
    levels: NDArray[np.float32]
    rows: int

    def of(self, vectors: Mapping[str, NDArray[Any]], odd: Mapping[str, NDArray[np.bool_]]) -> dict[str, NDArray[Any]]:
        """Familiarity of each modality of B rows, from 0 to 1, NaN for rows without it.

        Args:
            vectors: Part -> (B, D), NaN in rows without the modality; see :func:`vectors_of`.
            odd: Modality -> (B,) rows with a cell not seen in training; their familiarity is 0.
        """
        found: dict[str, list[NDArray[Any]]] = {}
        for name, part in self.parts.items():
            if name in vectors:
                found.setdefault(name.partition(".")[0], []).append(part.level(vectors[name], self.levels))
        result = {m: np.minimum(1, len(each) * np.min(each, axis=0)) for m, each in found.items()}
        for modality, rows in odd.items():
            if modality in result:
                result[modality] = np.where(rows, np.minimum(result[modality], self.levels[-1]), result[modality])
        return result

    def to_bytes(self) -> bytes:
        """The contents of its file."""
        arrays = {f"{name}.{key}": value for name, part in self.parts.items() for key, value in _arrays(part).items()}
        about = json.dumps({"rows": self.rows, "parts": [*self.parts]})  # one entry: the order of several is undefined
        return save({**arrays, "levels": self.levels}, {"about": about})

    def entry(self) -> dict[str, Any]:
        """Its entry in ``config.json``."""
        return {"rows": self.rows, "sha256": hashlib.sha256(self.to_bytes()).hexdigest()}

    def write(self, folder: Path) -> None:
        """Write the file into a model's folder."""
        folder.mkdir(parents=True, exist_ok=True)
        with written_whole(folder / FAMILIARITY) as partial:
            partial.write_bytes(self.to_bytes())

    @classmethod
    def read(cls, folder: Path, entry: Mapping[str, Any] | None) -> Familiarity | None:
        """Read the file of a model's folder, given the ``familiarity`` entry of ``config.json``; None without one.

        Raises:
            FileNotFoundError: The file is missing.
            ValueError: It is damaged.
        """
        path = folder / FAMILIARITY
        if entry is None:
            return None
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {FAMILIARITY}; download or save the model again.")
        if hashlib.sha256(path.read_bytes()).hexdigest() != entry.get("sha256"):
            raise ValueError(f"{path} does not match config.json; download or save the model again.")
        try:
            with safe_open(path, "numpy") as file:
                about = json.loads(file.metadata()["about"])
                parts = {
                    name: _part({key: file.get_tensor(f"{name}.{key}") for key in _KEYS}) for name in about["parts"]
                }
                return cls(parts, file.get_tensor("levels"), int(about["rows"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is damaged ({error}); download or save the model again.") from None


_KEYS = ("mean", "scale", "directions", "variances", "rest", "quantiles")


def _arrays(part: Part) -> dict[str, NDArray[Any]]:
    arrays = {key: np.atleast_1d(np.asarray(getattr(part, key), dtype=np.float32)) for key in _KEYS}
    return {key: np.ascontiguousarray(value) for key, value in arrays.items()} | {
        "directions": np.ascontiguousarray(part.directions, dtype=np.float16)
    }


def _part(arrays: Mapping[str, NDArray[Any]]) -> Part:
    values = {key: value.astype(np.float32) for key, value in arrays.items() if key != "rest"}
    return Part(**values, rest=float(arrays["rest"][0]))


def look_of(pixels: Tensor) -> Tensor:
    """Appearance of normalized images (N, 3, H, W): (N, 17) numbers.

    Mean and contrast of each channel, contrast of the differences between channels, difference between center and
    surroundings in each channel, and differences of neighboring pixels at three scales, along rows and columns.
    """
    # in small chunks that stay in the CPU cache
    return torch.cat([_look_of(few) for few in pixels.split(AT_ONCE)])


def _look_of(pixels: Tensor) -> Tensor:
    full = pixels.float().contiguous()
    height, width = full.shape[2] // 2 * 2, full.shape[3] // 2 * 2
    rows = full[:, :, :height:2] + full[:, :, 1::2]
    x = (rows[..., :width:2] + rows[..., 1::2]) / 4  # mean of four pixels, many times faster than avg_pool2d
    flat = x.flatten(2)
    mean = flat.mean(dim=2)
    h, w = x.shape[2] // 4, x.shape[3] // 4
    middle = x[:, :, h : x.shape[2] - h, w : x.shape[3] - w].mean(dim=(2, 3)) - mean
    sharp, grey = full.mean(dim=1), x.mean(dim=1)
    # neighbors in every second row and column are enough at full scale
    steps = [
        (sharp[:, ::2, 1::2] - sharp[:, ::2, :width:2]).abs().mean(dim=(1, 2)),
        (sharp[:, 1::2, ::2] - sharp[:, :height:2, ::2]).abs().mean(dim=(1, 2)),
    ]
    for small in (grey, nn.functional.avg_pool2d(grey[:, None], min(2, *grey.shape[1:]))[:, 0]):
        steps += [small.diff(dim=axis).abs().mean(dim=(1, 2)) for axis in (1, 2)]
    contrasts = [_spread(flat), _spread(flat[:, :2] - flat[:, 1:]), torch.stack(steps, dim=1)]
    return torch.cat([mean, middle, (torch.cat(contrasts, dim=1) + DARK).log()], dim=1)


def _spread(x: Tensor) -> Tensor:
    """Standard deviation over the last dimension, faster than ``Tensor.std``."""
    centred = x - x.mean(dim=-1, keepdim=True)
    return torch.linalg.vector_norm(centred, dim=-1) / (x.shape[-1] - 1) ** 0.5


def vectors_of(
    batch: Mapping[str, Any], features: Mapping[str, Features], table: TableColumns | None = None
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.bool_]]]:
    """The vectors of a batch that familiarity is computed from.

    Args:
        batch: Model inputs.
        features: Modality -> output of its tower; empty for an exported model.
        table: Encoding of the columns.

    Returns:
        Part -> (B, D), NaN for rows without the modality; and modality -> (B,) rows with a cell not seen in training.
    """
    found: dict[str, Tensor] = {}
    if (pixels := batch.get("pixel_values")) is not None:
        found["image.look"] = _look(pixels, next((batch[m] for m in ("slice_mask", "view_mask") if m in batch), None))
    found |= {f"{modality}.features": each.pooled for modality, each in features.items()}
    vectors: dict[str, NDArray[Any]] = {}
    for name, values in found.items():
        array = values.float().cpu().numpy().copy()
        if (present := batch.get(f"{name.partition('.')[0]}_present")) is not None:
            array[~present.bool().cpu().numpy()] = np.nan
        vectors[name] = array
    return vectors, {"table": _odd_cells(batch, table)} if table is not None else {}


def _look(pixels: Tensor, mask: Tensor | None) -> Tensor:
    """(B, 17) for images (B, 3, H, W); for slices or views (B, N, 3, H, W) the mean over those present."""
    if pixels.ndim == 4:
        return look_of(pixels)
    each = look_of(pixels.flatten(0, 1)).view(*pixels.shape[:2], -1)
    weight = torch.ones(pixels.shape[:2], device=pixels.device) if mask is None else mask.float()
    return (each * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True).clamp(min=1)


def _odd_cells(batch: Mapping[str, Any], table: TableColumns) -> NDArray[np.bool_]:
    """(B,) whether a row has an unseen category or a number far outside the training range."""
    odd = np.zeros(len(batch["table_present"]), dtype=bool)
    if (ids := batch.get("category_ids")) is not None and ids.shape[1]:
        odd |= (ids == UNSEEN).any(dim=1).cpu().numpy()
    if (numbers := batch.get("numeric_values")) is not None and table.numeric:
        x = numbers.double().cpu().numpy()
        low, high = (np.array([getattr(column, end) for column in table.numeric]) for end in ("low", "high"))
        margin = FAR * (high - low)
        odd |= ((x < low - margin) | (x > high + margin)).any(axis=1)
    return odd


@contextmanager
def tower_features(model: nn.Module) -> Iterator[Callable[[], dict[str, Features]]]:
    """Access to the tower outputs of the last batch, modality -> features; empty for an exported model."""
    if (keeper := getattr(model, "pooled_keeper", None)) is not None:  # a compiled model ignores new hooks
        yield lambda: keeper.features
        return
    seen: dict[str, Features] = {}
    sides = getattr(model, "sides", None)
    handle = None if sides is None else sides.register_forward_pre_hook(lambda _, given: seen.update(given[0]))
    try:
        yield lambda: dict(seen)
    finally:
        if handle is not None:
            handle.remove()


def case_level(modalities: Mapping[str, NDArray[Any]]) -> tuple[NDArray[Any], list[str]]:
    """Familiarity of each case, from its least familiar modality, and the modalities unlike the training data.

    Args:
        modalities: Modality -> (B,) familiarity, NaN for rows without it.

    Returns:
        (B,) from 0 to 1: the minimum over k modalities, times k (Bonferroni correction for several modalities); and B
        texts, joined by ``+``.
    """
    each = np.stack(list(modalities.values()))
    there = ~np.isnan(each)
    least = np.where(there, each, 1).min(axis=0)
    case = np.where(there.any(axis=0), np.minimum(1, least * there.sum(axis=0)), np.nan)
    counts: Sequence[int] = there.sum(axis=0)
    named = [
        "+".join(m for m, values in modalities.items() if values[i] * counts[i] < USUAL) for i in range(each.shape[1])
    ]
    return case, named
