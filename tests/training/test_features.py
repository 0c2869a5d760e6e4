"""Features on disk are read back, row by row and padded in a batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfusion.training.features import FeatureRows, FeatureStore, write_features


def _write(folder: Path, rows: int = 5) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = np.array([[1, 1, 1], [1, 0, 0], [0, 1, 0], [0, 0, 0], [1, 1, 0]], dtype=bool)[:rows]
    arrays = {
        "tokens": rng.normal(size=(rows, 3, 2)).astype(np.float32) * mask[..., None],
        "mask": mask,
        "pooled": rng.normal(size=(rows, 4)).astype(np.float32),
        "present": mask.any(axis=1),
    }
    halves = [{name: array[part] for name, array in arrays.items()} for part in (slice(2), slice(2, None))]
    write_features(folder, {"from": "a test"}, halves, padded=("tokens", "mask"))
    return arrays


def test_rows_are_as_long_as_they_are_real_and_batches_are_padded(tmp_path: Path) -> None:
    arrays = _write(tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    assert len(store) == 5 and store.about == {"from": "a test"}
    assert [len(store[i]["tokens"]) for i in range(5)] == [3, 1, 2, 1, 2]
    batch = store.collate([store[i] for i in range(5)])
    for name, array in arrays.items():
        assert torch.equal(batch[name], torch.from_numpy(array)), name
    assert store.collate([store[1], store[3]])["tokens"].shape == (2, 1, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_store_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    def broken() -> Iterator[dict[str, np.ndarray]]:
        yield {"pooled": np.zeros((2, 3), np.float32)}
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_features(tmp_path / "store", {}, broken())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(FileNotFoundError, match="has no features"):
        FeatureStore(tmp_path / "store")
    _write(tmp_path / "store")
    path = tmp_path / "store" / "pooled.bin"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(ValueError, match=r"pooled.bin does not match .*; delete the folder"):
        FeatureStore(tmp_path / "store")


def test_two_writers_of_one_store_leave_one(tmp_path: Path) -> None:
    def slow() -> Iterator[dict[str, np.ndarray]]:
        yield {"pooled": np.ones((1, 2), np.float32)}
        _write(tmp_path / "store")

    write_features(tmp_path / "store", {}, slow())
    assert len(FeatureStore(tmp_path / "store")) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_layout_may_not_change_between_batches(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'pooled' changed"):
        write_features(tmp_path / "store", {}, [{"pooled": np.zeros((2, n), np.float32)} for n in (3, 4)])


def test_epochs_take_the_views_in_turn(tmp_path: Path) -> None:
    stores = []
    for view in range(2):
        pooled = np.array([[1], [2], [0]], np.float32) + 10 * view
        write_features(tmp_path / str(view), {}, [{"pooled": pooled, "present": np.ones(3, dtype=bool)}])
        stores.append((FeatureStore(tmp_path / str(view)), np.array([2, 0, 1])))
    rows = FeatureRows(np.array(["a", "b", "c"]), np.array([0, 1, -1]), {"image": stores})
    seen = []
    for epoch in range(3):
        rows.set_epoch(epoch)
        seen.append(rows.collate([rows[0], rows[1]])["image_features"]["pooled"].tolist())
    assert seen == [[[0], [1]], [[10], [11]], [[0], [1]]]
    assert rows.collate([rows[0], rows[1]])["labels"].tolist() == [0, 1]
    assert "labels" not in rows.collate([rows[1], rows[-1]]) and rows[-1].keys() == rows[2].keys()
    with pytest.raises(ValueError, match="1 rows do not match 3 positions in 3 image features"):
        FeatureRows(np.array(["a"]), np.array([0]), {"image": stores})
