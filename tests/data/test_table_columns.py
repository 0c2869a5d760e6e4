"""Columns as inputs: fitted on training rows only, encoded exactly, saved as plain values."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
import torch

from mmfusion.data import MultimodalDataset, Processor, read_cases
from mmfusion.data.config import DatasetConfig
from mmfusion.data.read import stream_cases
from mmfusion.data.table_columns import CategoricalColumn, NumericColumn, TableColumns, has_decimal_comma, read_number

AGES = [str(20 + i % 60) for i in range(120)]
SEXES = [("male", "female", None)[i % 3] for i in range(120)]


@pytest.fixture
def table() -> TableColumns:
    return TableColumns.fit({"age": AGES, "sex": SEXES}, numeric=["age"], categorical=["sex"])


def test_scale_range_and_vocabulary_are_those_of_the_training_rows(table: TableColumns) -> None:
    age, sex = table.numeric[0], table.categorical[0]
    assert (age.mean, age.scale) == pytest.approx((np.mean([float(a) for a in AGES]), np.std([float(a) for a in AGES])))
    # each age occurs twice: five patients have 22 or less (20, 20, 21, 21, 22)
    assert (age.low, age.high) == (22.0, 77.0)
    assert age.edges[0] == 22.0 and age.edges[-1] == 77.0 and len(age.edges) == 7  # 120 rows, 20 a bin
    assert sex.values == ["female", "male"]
    assert table.table_args() == {"numeric": 1, "categories": [2], "bins": [7]}


def test_a_slip_of_the_pen_moves_neither_mean_nor_range(table: TableColumns) -> None:
    slipped = TableColumns.fit({"age": [*AGES, "45000"]}, numeric=["age"]).numeric[0]
    assert slipped.mean == pytest.approx(table.numeric[0].mean, rel=0.05)
    assert slipped.scale == pytest.approx(table.numeric[0].scale, rel=0.2)
    assert slipped.high < 80


def test_a_value_of_fewer_patients_is_not_in_the_vocabulary() -> None:
    cells, groups = ["rare"] * 6 + ["common"] * 6, [*("a", "b", "c", "d", "d", "d"), *"efghij"]
    assert CategoricalColumn.fit("x", cells, np.unique(groups, return_inverse=True)[1], 5).values == ["common"]
    table = TableColumns.fit({"x": cells}, categorical=["x"], groups=groups, min_patients=4)
    assert table.categorical[0].values == ["common", "rare"]


def test_encode_takes_texts_and_plain_values_of_every_kind(table: TableColumns) -> None:
    for age in ("45", "45.0", " 45 ", 45, 45.0, np.float32(45), np.int64(45)):
        assert table.encode({"age": age, "sex": "male"}) == ([45.0], [3])
    for nothing in (None, math.nan, np.nan, pd.NA, pd.NaT, "", "  ", "nan"):
        numbers, ids = table.encode({"age": nothing, "sex": nothing})
        assert math.isnan(numbers[0]) and ids == [0]
    assert table.encode({"sex": "M"})[1] == [1]
    assert table.encode({"age": "unknown"}, ["unknown"])[1] == [0]


@pytest.mark.parametrize("cell", ["57 years", "57,5", "inf", "1e400", "1e39", "1_000", "-", True, "0x10"])
def test_a_cell_that_is_no_finite_number_is_missing_and_told(table: TableColumns, cell: object) -> None:
    found = table.encode_columns({"age": [cell, "50"], "sex": [None, None]})
    assert np.isnan(found.numeric_values[0, 0]) and found.numeric_values[1, 0] == 50
    (line,) = found.notices.lines()
    assert line == f"age: 1 of 2 rows have a value that is not a number, read as missing (e.g. {str(cell)!r})"


def test_unseen_values_and_far_numbers_are_counted(table: TableColumns) -> None:
    found = table.encode_columns({"age": ["90", "104", "450", "-300"], "sex": ["M", "M", "F", "male"]})
    assert found.category_ids[:, 0].tolist() == [1, 1, 1, 3]
    # half of 77 - 22 beyond 77 is 104.5
    assert found.notices.lines() == [
        "age: 2 of 4 rows have a number far outside the range of the training rows (e.g. '450', '-300')",
        "sex: 3 of 4 rows have a value that is not among those learned in training (e.g. 'M', 'F')",
    ]
    assert found.present.tolist() == [True] * 4


def test_columns_in_another_order_and_dtype_give_bit_equal_inputs() -> None:
    frame = pd.DataFrame({"age": [float(a) for a in AGES], "sex": pd.Categorical(SEXES), "n": range(120)})
    one = TableColumns.fit(frame, numeric=["age", "n"], categorical=["sex"])
    other = TableColumns.fit(frame[["sex", "n", "age"]], numeric=["n", "age"], categorical=["sex"])
    assert one == other
    encoded = one.encode_columns(frame[["n", "sex", "age"]])
    assert np.array_equal(encoded.numeric_values, one.encode_columns(frame).numeric_values, equal_nan=True)
    texts = frame.astype(object).where(frame.notna(), None).map(lambda cell: None if cell is None else str(cell))
    assert np.array_equal(one.encode_columns(texts).category_ids, encoded.category_ids)


def test_json_round_trip_and_what_is_refused(table: TableColumns) -> None:
    plain = json.loads(json.dumps(table.to_dict()))
    assert TableColumns.from_dict(plain) == table
    for change, message in (
        (lambda d: d["numeric"][0].update(scale=0.0), "scale above 0"),
        (lambda d: d["numeric"][0].update(mean=math.inf), "not a finite number"),
        (lambda d: d["numeric"][0].update(edges=[1.0, 1.0]), "must increase"),
        (lambda d: d["numeric"][0].pop("low"), "low"),
        (lambda d: d["categorical"][0].update(values=["b", "a"]), "sorted"),
        (lambda d: d["categorical"][0].update(name="age"), "unique names"),
        (lambda d: d.pop("numeric"), "numeric"),
    ):
        broken = json.loads(json.dumps(plain))
        change(broken)
        with pytest.raises(ValueError, match=message):
            TableColumns.from_dict(broken)


def test_few_or_equal_numbers_still_make_a_column() -> None:
    lone = NumericColumn.fit("x", ["7", None], np.arange(2), 5)
    assert (lone.mean, lone.scale, lone.low, lone.high) == (7.0, 1.0, 5.0, 9.0)
    mostly_zero = NumericColumn.fit("x", ["0"] * 90 + [str(i) for i in range(1, 11)], np.arange(100), 5)
    assert mostly_zero.low == 0 and mostly_zero.high == 6 and mostly_zero.scale > 0
    with pytest.raises(ValueError, match="has no number"):
        NumericColumn.fit("x", ["a", None], np.arange(2), 5)


def test_numbers_are_read_strictly() -> None:
    assert [read_number(cell) for cell in ("57.5", "1e3", "-2", "+3")] == [57.5, 1000.0, -2.0, 3.0]
    assert has_decimal_comma("57,5") and not has_decimal_comma("1,234,5") and not has_decimal_comma("a,b")


def test_the_processor_makes_and_saves_column_inputs(table: TableColumns, tmp_path) -> None:
    processor = Processor(labels=["a", "b"], table=table)
    batch = processor(
        table=pd.DataFrame({"sex": ["female", None, "M"], "age": [57.0, np.nan, 31.0]}), labels=["a", "b", "a"]
    )
    assert batch["numeric_values"].dtype == torch.float32 and batch["category_ids"].dtype == torch.int64
    assert batch["numeric_values"].nan_to_num(-1).tolist() == [[57.0], [-1.0], [31.0]]
    assert batch["category_ids"].tolist() == [[2], [0], [1]]
    assert batch["table_present"].tolist() == [True, False, True]
    one = processor(table={"age": 57})
    assert one["numeric_values"].tolist() == [[57.0]] and one["category_ids"].tolist() == [[0]]
    numbers = Processor(table=TableColumns(numeric=table.numeric))(table={"age": 57})
    assert "category_ids" not in numbers
    processor.save_pretrained(tmp_path)
    assert Processor.from_pretrained(tmp_path).table == table
    assert "table" not in Processor(labels=["a"]).to_dict()


def test_a_data_set_encodes_the_columns_of_its_rows(table: TableColumns, tmp_path) -> None:
    (tmp_path / "t.csv").write_text("label,sex,age,text\na,male,31,\nb,unknown,,a text\na,F,57 y,\n")
    cases = read_cases(
        tmp_path, DatasetConfig(numeric_columns=["age"], categorical_columns=["sex"]), require_labels=False
    )
    rows = MultimodalDataset(cases, Processor(labels=["a", "b"], table=table))
    batch = rows.collate([rows[i] for i in range(3)])
    assert batch["numeric_values"].nan_to_num(-1).flatten().tolist() == [31.0, -1.0, -1.0]
    assert batch["category_ids"].flatten().tolist() == [3, 0, 1]
    assert batch["table_present"].tolist() == [True, False, True]
    assert len(rows.notices().lines()) == 2


def test_parts_of_a_table_are_the_table(tmp_path) -> None:
    lines = [f"{i},r{i},{i % 7}" for i in range(25)]
    (tmp_path / "t.csv").write_text("\n".join(["a,id,b", *lines, "broken"]) + "\n")
    config = DatasetConfig(table_columns="auto", id_column="id")
    whole = read_cases(tmp_path, config, require_labels=False)
    parts = list(stream_cases(tmp_path, config, processor_labels=[], rows=10))
    assert [len(part) for part in parts] == [10, 10, 6]
    assert pd.concat([part.frame for part in parts]).equals(whole.frame)
    assert [str(problem) for part in parts for problem in part.problems] == [str(problem) for problem in whole.problems]
    pd.DataFrame({"id": ["x", "y", "z"], "a": [1.5, None, 2]}).to_parquet(tmp_path / "p.parquet")
    parts = list(stream_cases(tmp_path / "p.parquet", config, processor_labels=[], rows=2))
    assert [part.frame["a"].tolist() for part in parts] == [["1.5", None], ["2"]]
    assert [list(part.frame.index) for part in parts] == [[1, 2], [3]]


def test_options_of_columns() -> None:
    assert DatasetConfig(table_columns=["auto"]).table_columns == "auto"
    assert DatasetConfig(table_columns="none").table_columns is None
    assert DatasetConfig(table_columns="age").named_columns == ["age"]
    with pytest.raises(ValueError, match="both name x"):
        DatasetConfig(numeric_columns=["x"], categorical_columns=["x"])
