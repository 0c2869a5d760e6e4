"""The search for near duplicates, compared with all pairs."""

from __future__ import annotations

import numpy as np

from mmfusion.auditing.images import SAME, near_duplicates


def _thumbnails(n: int, seed: int) -> np.ndarray:
    """Thumbnails that vary a few images, so that many correlate, some almost perfectly."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:32, :32] / 32
    themes = [128 + 90 * np.sin(a * x + b * y + c) for a, b, c in rng.uniform(1, 9, size=(6, 3))]
    pictures = []
    for i in range(n):
        theme = np.rot90(themes[i % 6], rng.integers(4))
        theme = theme[::-1] if rng.integers(2) else theme
        pictures.append(theme + rng.uniform(2, 25) * rng.standard_normal((32, 32)))
    return np.clip(pictures, 0, 255).astype(np.uint8)


def test_against_every_pair() -> None:
    thumbnails = _thumbnails(120, 0)
    flat = thumbnails.reshape(120, -1)
    highest = np.full((120, 120), -1.0)
    for side in (thumbnails, thumbnails.swapaxes(1, 2)):
        for turns in range(4):
            position = np.rot90(side, turns, axes=(1, 2)).reshape(120, -1)
            highest = np.maximum(highest, np.corrcoef(flat, position)[:120, 120:])
    expected = {(int(i), int(j)) for i, j in zip(*np.nonzero(np.triu(highest >= SAME, k=1)), strict=True)}
    found = {(int(i), int(j)) for i, j in near_duplicates(thumbnails)}
    assert found == expected
    assert 20 < len(found) < 120 * 119 / 2 / 4


def test_few_pictures() -> None:
    assert near_duplicates(np.empty((0, 32, 32), np.uint8)).shape == (0, 2)
    assert near_duplicates(_thumbnails(1, 1)).shape == (0, 2)
