from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest

from mmfusion.evaluation import subgroups
from mmfusion.evaluation.metrics import HEADLINE, classification_metrics
from mmfusion.evaluation.subgroups import subgroup_figures, write_subgroups


@pytest.fixture
def rows():
    rng = np.random.default_rng(0)
    n = 240
    frame = pd.DataFrame(
        {
            "sex": [None if i % 24 == 0 else "female" if i % 3 else "male" for i in range(n)],
            "age": [None if i == 5 else str(20 + i % 60) for i in range(n)],
            "visits": [str(i % 2) for i in range(n)],
            "id": [f"case{i}" for i in range(n)],
        },
        dtype=object,
    )
    labels = rng.integers(0, 3, n)
    return frame, labels, rng.dirichlet(np.ones(3), n), np.arange(n) // 2


def test_values_of_a_column(rows):
    frame, labels, p, groups = rows
    found = subgroup_figures(frame, labels, p, groups, ["sex"], replicates=50)["sex"]
    assert [(part.value, part.n, part.small) for part in found] == [
        ("female", 160, False),
        ("male", 70, False),
        ("(missing)", 10, True),
    ]
    here = (frame["sex"] == "male").to_numpy()
    plain = classification_metrics(labels[here], p[here], list("abc"))
    assert found[1].groups == len(set(groups[here])) and found[1].classes == 3
    for name in HEADLINE:
        assert found[1].figures[name].value == pytest.approx(plain[name])
        assert found[1].figures[name].low <= found[1].figures[name].high


def test_numbers_in_bands(rows):
    frame, labels, p, groups = rows
    thirds = subgroup_figures(frame, labels, p, groups, ["age"], replicates=5)["age"]
    assert [part.value for part in thirds] == ["20 to 40", ">40 to 60", ">60 to 79", "(missing)"]
    assert [part.n for part in thirds] == [83, 80, 76, 1]
    tens = subgroup_figures(frame, labels, p, groups, ["age:20"], replicates=5)["age"]
    assert [(part.value, part.n) for part in tens] == [
        ("20 to <40", 79),
        ("40 to <60", 80),
        ("60 to <80", 80),
        ("(missing)", 1),
    ]
    few = subgroup_figures(frame, labels, p, groups, ["visits"], replicates=5)["visits"]
    assert [part.value for part in few] == ["0", "1"]


def test_csv(rows, tmp_path):
    found = subgroup_figures(*rows, ["sex", "age"], replicates=20)
    write_subgroups(found, tmp_path / "subgroups.csv")
    with (tmp_path / "subgroups.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["column"] for line in lines] == ["sex"] * 3 + ["age"] * 4
    assert lines[2]["small"] == "true" and lines[0]["small"] == "false"
    assert float(lines[0]["accuracy_low"]) == pytest.approx(found["sex"][0].figures["accuracy"].low, rel=1e-5)
    assert lines[-1]["macro_auroc"] == ""  # one row has no ranking


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("Sexx", r"no column 'Sexx' \(is it 'sex'\?\), 'gender'; it has sex, age, visits, id"),
        ("sex:10", "not numeric"),
        ("age:x", "must be above 0"),
        ("age:-1", "must be above 0"),
        ("id", "240 distinct values"),
    ],
)
def test_columns_that_part_nothing(rows, column, message):
    with pytest.raises(ValueError, match=message):
        subgroup_figures(*rows, [column, *["gender"] * (column == "Sexx")])


@pytest.mark.parametrize(
    ("numbers", "width", "expected"),
    [
        ([0.1, 0.3, 0.7, 0.75], "0.1", ["0.1 to <0.2", "0.3 to <0.4", "0.7 to <0.8"]),
        ([1000000, 1000001, 1000002], "1", ["1000000 to <1000001", "1000001 to <1000002", "1000002 to <1000003"]),
    ],
)
def test_bands_hold_their_numbers(numbers, width, expected):
    names, of_row = subgroups._banded("x", pd.Series([str(number) for number in numbers]), width)
    assert names == expected and of_row == expected + [expected[-1]] * (len(numbers) - 3)
