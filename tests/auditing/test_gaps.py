"""The test for absence by class, against scipy and the closed form of a two-by-two table."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi2

from mmfusion.auditing.gaps import association


def _rows(table: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Presence and label of each row of a table of counts: (absent, present) x labels."""
    cells = [(there, "abc"[j]) for there in (0, 1) for j in range(len(table[0])) for _ in range(table[there][j])]
    has, labels = zip(*cells, strict=True)
    return np.array(has, dtype=bool), np.array(labels, dtype=object)


def test_two_classes() -> None:
    (a, b), (c, d) = table = [[30, 10], [70, 90]]
    has, labels = _rows(table)
    p_value, effect, shares = association(has, labels, np.arange(200))
    phi = abs(a * d - b * c) / np.sqrt((a + b) * (c + d) * (a + c) * (b + d))
    assert effect == pytest.approx(phi)
    assert p_value == pytest.approx(chi2.sf(200 * phi**2, 1))
    assert shares == {"a": pytest.approx(0.3), "b": pytest.approx(0.1)}


def test_rare_classes_are_pooled_or_left_out() -> None:
    has, labels = _rows([[30, 10, 0], [70, 90, 3]])
    pooled = association(has, labels, np.arange(203))
    assert pooled[:2] == association(has[labels != "c"], labels[labels != "c"], np.arange(200))[:2]
    assert pooled[2]["c"] == 0


def test_rows_of_a_group_count_once() -> None:
    has, labels = _rows([[30, 10], [70, 90]])
    once = association(has, labels, np.arange(200))
    assert association(np.repeat(has, 4), np.repeat(labels, 4), np.repeat(np.arange(200), 4))[:2] == once[:2]


def test_nothing_to_test() -> None:
    has, labels = _rows([[0, 0], [70, 90]])
    assert association(has, labels, np.arange(160))[:2] == (1.0, 0.0)
