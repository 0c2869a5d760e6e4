"""Measures of label leaks, compared with closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from mmfusion.auditing.leaks import encode, judge


def _balanced(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels 0 1 0 1 ...; each row is its own group, and the two folds have equal classes."""
    return np.arange(rows) % 2, np.arange(rows), np.arange(rows) // 2 % 2


def test_a_column_that_is_the_label() -> None:
    labels, groups, folds = _balanced(200)
    found = judge(labels, ["a", "b"], labels, groups, folds)
    # the other fold has 50 rows of the value, all of its class, and half a row of each class is added
    assert found.removed == pytest.approx(1 - np.log(51 / 50.5) / np.log(2))
    assert found.settled == 1 and found.values == ["a", "b"] and found.is_leak


def test_a_small_table_whose_column_is_the_label() -> None:
    """Too few rows to determine single labels, but a clear leak, because every row has the same gain."""
    labels, groups, folds = _balanced(40)
    found = judge(labels, ["a", "b"], labels, groups, folds)
    assert found.settled == 0 and found.removed == pytest.approx(1 - np.log(11 / 10.5) / np.log(2)) and found.is_leak


def test_one_value_tells_nothing() -> None:
    labels, groups, folds = _balanced(200)
    found = judge(np.zeros(200, dtype=int), ["a"], labels, groups, folds)
    assert found.removed == pytest.approx(0) and found.settled == 0 and not found.is_sure


def test_a_value_of_each_row_tells_nothing() -> None:
    labels, groups, folds = _balanced(200)
    found = judge(groups, [str(group) for group in groups], labels, groups, folds)
    assert found.removed == pytest.approx(0) and found.settled == 0


def test_noise_is_no_evidence() -> None:
    labels, groups, folds = _balanced(300)
    rng = np.random.default_rng(0)
    columns = [judge(rng.integers(0, 5, 300), list("abcde"), labels, groups, folds) for _ in range(50)]
    assert not any(found.is_sure or found.is_leak for found in columns)


@pytest.mark.parametrize(("independent", "settles"), [(58, False), (59, True)])
def test_when_a_value_settles_the_label(independent: int, settles: bool) -> None:
    """None of n groups has the other class (half of the rows): 1 - 0.05^(1/n) <= 0.05, hence n >= 59."""
    labels, groups, folds = _balanced(800)
    codes = np.zeros(800, dtype=int)
    codes[np.flatnonzero(labels == 1)[:independent]] = 1
    found = judge(codes, ["rest", "sure"], labels, groups, folds)
    assert found.values == (["sure"] if settles else [])
    assert found.settled == (independent / 800 if settles else 0)


def test_a_group_counts_once() -> None:
    labels, groups, folds = _balanced(800)
    codes = np.zeros(800, dtype=int)
    sure = np.flatnonzero(labels == 1)[:100]
    codes[sure] = 1
    assert judge(codes, ["rest", "sure"], labels, groups, folds).values == ["sure"]
    groups[sure] = sure[0] + np.arange(100) // 10  # ten patients of ten rows each
    assert judge(codes, ["rest", "sure"], labels, groups, folds).values == []


def test_encode() -> None:
    codes, names = encode(["b", None, "a", "b"])
    assert names == ["(missing)", "a", "b"] and codes.tolist() == [2, 0, 1, 2]
    codes, names = encode([str(i / 2) for i in range(400)])
    assert np.bincount(codes).tolist() == [20] * 20 and "0 to 9.975" in names
    codes, names = encode([str(i % 30) for i in range(400)])  # few numbers are values
    assert len(names) == 30
