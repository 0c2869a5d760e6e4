"""Group splits, the balanced sampler and neighboring slices."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch

from mmfusion.data import balanced_sampler, group_folds, group_split, neighbour_slices


def _long_tailed(num_groups: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 6, size=num_groups)
    group_labels = rng.choice(["a", "b", "c"], p=[0.8, 0.15, 0.05], size=num_groups)
    return np.repeat(group_labels, sizes), np.repeat(np.arange(num_groups), sizes)


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_whole_and_classes_keep_their_shares(seed: int) -> None:
    labels, groups = _long_tailed(400, seed)
    split = group_split(labels, groups, seed=seed)
    assert all(len(set(split[groups == group])) == 1 for group in np.unique(groups))
    group_split_names = split[np.unique(groups, return_index=True)[1]]
    shares = Counter(group_split_names)
    assert shares["train"] / 400 == pytest.approx(0.7, abs=0.01)
    assert shares["val"] / 400 == pytest.approx(0.15, abs=0.01)
    assert shares["test"] / 400 == pytest.approx(0.15, abs=0.01)
    for label in "abc":
        overall = (labels == label).mean()
        for name in shares:
            assert (labels[split == name] == label).mean() == pytest.approx(overall, abs=0.06)


@pytest.mark.parametrize("seed", range(5))
def test_a_class_of_few_groups_lies_in_every_split(seed: int) -> None:
    labels = np.repeat(list("abcdefg"), [24, 24, 24, 24, 24, 7, 7])
    split = group_split(labels, seed=seed)
    for label in "fg":
        found = Counter(split[labels == label])
        assert set(found) == {"train", "val", "test"} and found["train"] >= 4
    assert all(18 >= Counter(split[labels == label])["train"] >= 16 for label in "abcde")


def test_rows_without_a_group_are_their_own() -> None:
    labels = ["a", "b"] * 50
    for groups in (None, [None] * 100, [math.nan] * 100):
        split = group_split(labels, groups, fractions={"train": 0.8, "test": 0.2})
        assert Counter(split) == {"train": 80, "test": 20}
        assert Counter(np.array(labels)[split == "test"]) == {"a": 10, "b": 10}


def test_a_group_with_several_classes_counts_as_its_rarest() -> None:
    labels = ["common", "common", "rare"] * 20 + ["common"] * 60
    groups = [i // 3 for i in range(60)] + list(range(20, 80))
    split = group_split(labels, groups, fractions={"train": 0.5, "test": 0.5}, seed=3)
    rare = np.array(labels) == "rare"
    assert Counter(split[rare]) == {"train": 10, "test": 10}


@pytest.mark.parametrize("seed", range(20))
def test_every_class_has_training_rows(seed: int) -> None:
    labels = ["a"] * 60 + ["b"] * 2 + ["c"]
    groups = [*range(60), 60, 60, 61]
    split = group_split(labels, groups, seed=seed)
    assert set(np.array(labels)[split == "train"]) == {"a", "b", "c"}
    assert set(split) == {"train", "val", "test"}


def test_the_seed_fixes_the_draw() -> None:
    labels, groups = _long_tailed(100, 0)
    first = group_split(labels, groups, seed=1)
    np.testing.assert_array_equal(first, group_split(labels, groups, seed=1))
    assert (first != group_split(labels, groups, seed=2)).any()


def test_few_groups() -> None:
    split = group_split(["a"] * 3, [1, 2, 3])
    assert sorted(split) == ["test", "train", "val"]
    with pytest.raises(ValueError, match="2 groups cannot be split into train, val, test"):
        group_split(["a"] * 4, [1, 1, 2, 2])


def test_a_zero_share_makes_no_split() -> None:
    split = group_split(["a"] * 10, fractions={"train": 0.8, "val": 0.2, "test": 0.0})
    assert Counter(split) == {"train": 8, "val": 2}


@pytest.mark.parametrize("folds", [2, 5, 30])
def test_folds_are_equal_and_keep_groups_whole(folds: int) -> None:
    labels, groups = _long_tailed(400, 0)
    fold = group_folds(labels, groups, folds=folds, seed=1)
    assert all(len(set(fold[groups == group])) == 1 for group in np.unique(groups))
    sizes = Counter(fold[np.unique(groups, return_index=True)[1]].tolist())
    assert sorted(sizes) == list(range(folds))
    assert max(sizes.values()) - min(sizes.values()) <= 3  # each class is distributed separately
    np.testing.assert_array_equal(fold, group_folds(labels, groups, folds=folds, seed=1))


def test_too_few_folds_or_groups() -> None:
    with pytest.raises(ValueError, match="two folds are needed"):
        group_folds(["a"] * 10, folds=1)
    with pytest.raises(ValueError, match="3 groups cannot be split"):
        group_folds(["a"] * 6, [0, 0, 1, 1, 2, 2], folds=4)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        group_split(["a"] * 10, fractions={"train": 0.8, "val": 0.3})
    with pytest.raises(ValueError, match="10 labels but 9 groups"):
        group_split(["a"] * 10, [0] * 9)


def test_balanced_sampler_weights_are_the_inverse_prior() -> None:
    sampler = balanced_sampler(["a"] * 6 + ["b"] * 3 + ["c"])
    expected = [10 / 6] * 6 + [10 / 3] * 3 + [10.0]
    torch.testing.assert_close(sampler.weights, torch.tensor(expected, dtype=torch.float64))
    assert len(sampler) == 10


def test_balanced_sampler_draws_classes_equally_often() -> None:
    labels = torch.tensor([0] * 9000 + [1] * 900 + [2] * 100)
    drawn = labels[list(balanced_sampler(labels, seed=1))]
    # standard error of a share of 1/3 over 10,000 draws: 0.0047
    torch.testing.assert_close(drawn.bincount() / 10_000, torch.full((3,), 1 / 3), atol=0.02, rtol=0)


def test_balanced_sampler_generator() -> None:
    labels = [0, 0, 0, 1]
    assert list(balanced_sampler(labels, seed=5)) == list(balanced_sampler(labels, seed=5))
    generator = torch.Generator().manual_seed(5)
    assert list(balanced_sampler(labels, generator=generator)) == list(balanced_sampler(labels, seed=5))
    state = torch.get_rng_state()
    list(balanced_sampler(labels))
    assert torch.equal(state, torch.get_rng_state())
    with pytest.raises(ValueError, match="at least one label"):
        balanced_sampler([])


@pytest.mark.parametrize(
    ("i", "n", "mode", "expected"),
    [
        (0, 5, "replicate", (0, 0, 1)),
        (2, 5, "replicate", (1, 2, 3)),
        (4, 5, "replicate", (3, 4, 4)),
        (0, 5, "mirror", (1, 0, 1)),
        (2, 5, "mirror", (1, 2, 3)),
        (4, 5, "mirror", (3, 4, 3)),
        (0, 1, "replicate", (0, 0, 0)),
        (0, 1, "mirror", (0, 0, 0)),
        (0, 2, "mirror", (1, 0, 1)),
        (1, 2, "mirror", (0, 1, 0)),
    ],
)
def test_neighbour_slices(i: int, n: int, mode: str, expected: tuple[int, int, int]) -> None:
    assert neighbour_slices(i, n, mode) == expected


def test_neighbour_slices_refuses() -> None:
    for i, n in ((5, 5), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match="does not exist"):
            neighbour_slices(i, n)
    with pytest.raises(ValueError, match="replicate, mirror"):
        neighbour_slices(0, 3, "wrap")
