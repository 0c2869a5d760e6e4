"""Bags of feature vectors: read from the files that pathology tools write, in half precision, and padded in batches."""

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

#: files of bags, in the order in which they are looked for.
BAG_SUFFIXES = (".h5", ".hdf5", ".npz", ".safetensors")
#: name of the array in a file; one with a single array may call it otherwise.
KEY = "features"
BagLike: TypeAlias = str | os.PathLike[str] | NDArray[Any] | torch.Tensor
_PICKLE = (".pt", ".pth", ".pkl", ".bin")


def open_bag(bag: BagLike, width: int | None = None) -> NDArray[np.float16]:
    """The vectors of a bag (N, D), in half precision.

    Args:
        bag: File of a bag, or the vectors themselves; (1, N, D) is taken too.
        width: D that they have to have; None takes any.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is damaged, empty, of another width, or holds numbers that are not finite.
        ImportError: The file is HDF5, and h5py is not installed.
    """
    if isinstance(bag, str | os.PathLike):
        with _opened(Path(bag)) as array:
            values = np.asarray(array[()] if hasattr(array, "file") else array)
    else:
        values = np.asarray(bag)
    shape = _checked_shape(values.shape, values.dtype, width)
    with np.errstate(over="ignore"):  # what does not fit is told below
        half = values.reshape(shape).astype(np.float16, copy=False)
    if not np.isfinite(half).all():
        wrong = "are not finite" if not np.isfinite(values).all() else "do not fit half precision (above 65,504)"
        raise ValueError(f"the bag holds numbers that {wrong}")
    return half


def bag_width(path: Path) -> int:
    """D of a file's vectors, without reading them; errors as :func:`open_bag`."""
    with _opened(path) as array:
        return _checked_shape(array.shape, array.dtype, None)[1]


def _checked_shape(shape: Sequence[int], dtype: Any, width: int | None) -> tuple[int, int]:
    if len(shape) == 3 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) != 2:
        raise ValueError(f"a bag is (vectors, width), and this one is {tuple(shape)}")
    if np.dtype(dtype).kind not in "fiu":
        raise ValueError(f"a bag holds numbers, and this one {np.dtype(dtype)}")
    if 0 in shape:
        raise ValueError("the bag is empty")
    if width is not None and shape[1] != width:
        raise ValueError(f"the vectors are {shape[1]:,} wide, and have to be {width:,}")
    return shape[0], shape[1]


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """The array of a bag's file: it has shape and dtype, and an HDF5 one is not read yet."""
    if path.suffix.lower() in _PICKLE:
        raise ValueError(
            f"{path.name} is pickle, which may run any code, and is not read; save the vectors as "
            f"{', '.join(BAG_SUFFIXES)}: safetensors.torch.save_file({{'{KEY}': x.contiguous()}}, path)"
        )
    if path.suffix.lower() not in BAG_SUFFIXES:
        raise ValueError(f"{path.name} is no file of a bag; those end in {', '.join(BAG_SUFFIXES)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
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
        raise ImportError('Bags in .h5 files are read by h5py; pip install "mmfusion[bags]".') from None
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
    raise ValueError(f"the file has no {KEY!r}; it has {', '.join(names) or 'nothing'}")


def _damage() -> tuple[type[Exception], ...]:
    from zipfile import BadZipFile

    from safetensors import SafetensorError

    return (OSError, RuntimeError, EOFError, BadZipFile, SafetensorError, KeyError, AttributeError)


_DAMAGED: tuple[type[Exception], ...] = _damage()
_READERS = {".h5": _hdf5, ".hdf5": _hdf5, ".npz": _npz, ".safetensors": _safetensors}


def encode_bag(bag: Any, width: int) -> dict[str, Any]:
    """``bag_values`` (N, D) in half precision and ``image_present``; of a missing bag, none."""
    if bag is None:
        return {"bag_values": torch.zeros(0, width, dtype=torch.float16), "image_present": False}
    return {"bag_values": torch.from_numpy(open_bag(bag, width)), "image_present": True}


def pad_bags(bags: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Bags (N_i, D) as one tensor (B, N, D), with zeros behind, and which vectors are there (B, N)."""
    values = bags[0].new_zeros(len(bags), max(1, *map(len, bags)), bags[0].shape[1])
    mask = torch.zeros(values.shape[:2], dtype=torch.bool)
    for i, bag in enumerate(bags):
        values[i, : len(bag)] = bag
        mask[i, : len(bag)] = True
    return {"bag_values": values, "bag_mask": mask}
