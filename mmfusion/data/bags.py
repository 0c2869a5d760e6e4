"""Bags of feature vectors: reading the files of pathology tools in half precision, and padding batches."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from mmfusion.names import one_line

#: Suffixes of bag files, in search order.
BAG_SUFFIXES = (".h5", ".hdf5", ".npz", ".safetensors")
#: Default name of the array in a file; a file with a single array may use any name.
KEY = "features"
BagLike: TypeAlias = str | os.PathLike[str] | NDArray[Any] | torch.Tensor
_PICKLE = (".pt", ".pth", ".pkl", ".bin")


def open_bag(bag: BagLike, width: int | None = None) -> NDArray[np.float16]:
    """Read a bag as an (N, D) array in half precision.

    Args:
        bag: File of a bag, or the vectors themselves, (N, D) or (1, N, D).
        width: Expected D; None accepts any.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The bag is damaged, empty, of another width, or holds non-finite numbers.
        ImportError: The file is HDF5 and h5py is not installed.
    """
    if isinstance(bag, str | os.PathLike):
        with _opened(Path(bag)) as array:
            values = np.asarray(array[()] if hasattr(array, "file") else array)
    else:
        values = np.asarray(bag)
    shape = _checked_shape(values.shape, values.dtype, width)
    with np.errstate(over="ignore"):  # overflow is reported below
        half = values.reshape(shape).astype(np.float16, copy=False)
    if not np.isfinite(half).all():
        wrong = "are not finite" if not np.isfinite(values).all() else "do not fit half precision (above 65,504)"
        raise ValueError(f"the bag holds numbers that {wrong}")
    return half


def bag_width(path: Path) -> int:
    """Return D of a file's vectors without reading them; raises as :func:`open_bag`."""
    with _opened(path) as array:
        return _checked_shape(array.shape, array.dtype, None)[1]


def _checked_shape(shape: Sequence[int], dtype: Any, width: int | None) -> tuple[int, int]:
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2:
        raise ValueError(f"a bag must have shape (vectors, width), got {tuple(shape)}")
    if np.dtype(dtype).kind not in "fiu":
        raise ValueError(f"a bag must hold numbers, got {np.dtype(dtype)}")
    if 0 in shape:
        raise ValueError("the bag is empty")
    if width is not None and shape[1] != width:
        raise ValueError(f"the vectors have width {shape[1]:,}, expected {width:,}")
    return shape[0], shape[1]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Open the array of a bag file; it has shape and dtype, and HDF5 data are not read yet."""
    if path.suffix.lower() in _PICKLE:
        raise ValueError(
            f"{path.name} is a pickle, which can run arbitrary code, and is not read; save the vectors as "
            f"{', '.join(BAG_SUFFIXES)}: safetensors.torch.save_file({{'{KEY}': x.contiguous()}}, path)"
        )
    if path.suffix.lower() not in BAG_SUFFIXES:
        raise ValueError(f"{path.name} is not a bag file; supported suffixes: {', '.join(BAG_SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"the file {path} does not exist")
    try:
        with _READERS[path.suffix.lower()](path) as array:
            yield array
    except _DAMAGED as error:
        raise ValueError(f"the bag cannot be read: {one_line(error)}") from None


@contextmanager
def _hdf5(path: Path) -> Iterator[Any]:
    try:
        import h5py
    except ImportError:
        raise ImportError('Reading bags from .h5 files needs h5py: pip install "mmfusion[bags]".') from None
    with h5py.File(path, "r") as file:
        yield file[_key(list(file))]


@contextmanager
def _npz(path: Path) -> Iterator[Any]:
    with np.load(path, allow_pickle=False) as file:
        yield file[_key(list(file))]


@contextmanager
def _safetensors(path: Path) -> Iterator[Any]:
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:  # numpy has no bfloat16
        tensor = file.get_tensor(_key(list(file.keys())))
        yield (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def _key(names: Sequence[str]) -> str:
    """The name of the array to read."""
    if KEY in names:
        return KEY
    if len(names) == 1:
        return names[0]
    raise ValueError(f"the file has no array {KEY!r}; it has {', '.join(names) or 'nothing'}")


def _damage() -> tuple[type[Exception], ...]:
    from zipfile import BadZipFile

    from safetensors import SafetensorError

    return (OSError, RuntimeError, EOFError, BadZipFile, SafetensorError, KeyError, AttributeError)


_DAMAGED: tuple[type[Exception], ...] = _damage()
_READERS = {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".safetensors": _safetensors}


def encode_bag(bag: Any, width: int) -> dict[str, Any]:
    """``bag_values`` (N, D) in half precision and ``image_present``; a missing bag has no vectors."""
    if bag is None:
        return {"bag_values": torch.zeros(0, width, dtype=torch.float16), "image_present": False}
    return {"bag_values": torch.from_numpy(open_bag(bag, width)), "image_present": True}


def pad_bags(bags: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Pad bags (N_i, D) with zeros to one tensor (B, N, D), with a mask (B, N) of the vectors present."""
    values = bags[0].new_zeros(len(bags), max(1, *map(len, bags)), bags[0].shape[1])
    mask = torch.zeros(values.shape[:2], dtype=torch.bool)
    for i, bag in enumerate(bags):
        values[i, : len(bag)] = bag
        mask[i, : len(bag)] = True
    return {"bag_values": values, "bag_mask": mask}
