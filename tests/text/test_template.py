"""Sentences from metadata."""

from __future__ import annotations

import datetime
import math

import pytest

from mmfusion.text.template import cell_text, join_text, render, template_fields

SKIN = "{age}-year-old {sex}, lesion on the {localization}"
FULL = {"age": "55", "sex": "male", "localization": "back"}


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ((), "55-year-old male, lesion on the back"),
        (("age",), "male, lesion on the back"),
        (("sex",), "55-year-old, lesion on the back"),
        (("localization",), "55-year-old male"),
        (("age", "sex"), "lesion on the back"),
        (("age", "localization"), "male"),
        (("age", "sex", "localization"), ""),
    ],
)
def test_a_missing_field_goes_with_its_words(missing: tuple[str, ...], expected: str) -> None:
    assert render(SKIN, {**FULL, **dict.fromkeys(missing)}) == expected


@pytest.mark.parametrize(
    ("template", "row", "expected"),
    [
        # numbers, any type
        ("{age} years", {"age": 45.0}, "45 years"),
        ("{age} years", {"age": "45.0"}, "45 years"),
        ("{age} years", {"age": 45}, "45 years"),
        ("{size} mm", {"size": 4.5}, "4.5 mm"),
        # attached characters on either side, and between two fields
        ("about ({age}) years {sex}", {"age": None, "sex": "female"}, "about years female"),
        ("{a}/{b}", {"a": None, "b": "2"}, "2"),
        ("{a}/{b}", {"a": "1", "b": None}, "1"),
        ("{a}/{b}", {"a": "1", "b": "2"}, "1/2"),
        # separators: the strongest survives; only a period ends the text
        ("{a}, {b}. {c}", {"a": "x", "b": None, "c": "z"}, "x. z"),
        ("{a}; {b}, {c}", {"a": "x", "b": None, "c": "z"}, "x; z"),
        ("{a}, {b}.", {"a": "x", "b": None}, "x."),
        ("{a}, {b};", {"a": "x", "b": None}, "x"),
        ("{a}, {b}.", {"a": None, "b": None}, ""),
        # a separator cuts only before a space, and never within a value
        ("{a} 3.5 cm, {b}", {"a": "x", "b": None}, "x 3.5 cm"),
        ("{a}, {b}", {"a": "left, upper. arm", "b": None}, "left, upper. arm"),
        # brackets
        ("[{age}-year-old ]{sex}", {"age": None, "sex": "male"}, "male"),
        ("[{age}-year-old ]{sex}", {"age": "7", "sex": "male"}, "7-year-old male"),
        ("{sex}[ seen in {year} at {place}]", {"sex": "male", "year": "2019", "place": None}, "male"),
        ("{sex}[, lesion on the {site}]", {"sex": "male", "site": "ear"}, "male, lesion on the ear"),
        # segments without fields stay next to others; alone they give an empty text
        ("Dermoscopy, {age} years", {"age": "7"}, "Dermoscopy, 7 years"),
        ("Dermoscopy, {age} years, {sex}", {"age": None, "sex": "male"}, "Dermoscopy, male"),
        ("Dermoscopy, {age} years", {"age": None}, ""),
        ("Dermoscopy", {}, "Dermoscopy"),
        # a column name with a space
        ("on the {body site}", {"body site": "ear"}, "on the ear"),
    ],
)
def test_rules(template: str, row: dict[str, object], expected: str) -> None:
    assert render(template, row) == expected


def test_values_that_count_as_missing() -> None:
    missing = ("", "nan", "unknown")
    for value in (None, math.nan, "", "  ", "NaN", "Unknown"):
        assert render(SKIN, {**FULL, "sex": value}, missing) == "55-year-old, lesion on the back"
    assert render(SKIN, {**FULL, "sex": "unknown"}) == "55-year-old unknown, lesion on the back"


def test_an_unknown_column_is_named_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="names 'ages'; the columns are age, sex, localization"):
        render("{ages}-year-old", FULL)


@pytest.mark.parametrize("template", ["{age", "age}", "{{age}}", "[{age}", "{age}]", "[[{age}]]"])
def test_an_unpaired_brace_or_bracket_is_refused(template: str) -> None:
    with pytest.raises(ValueError, match=r"brace|bracket"):
        template_fields(template)


def test_a_field_reaches_no_attribute() -> None:
    with pytest.raises(ValueError, match=r"age\.__class__"):
        render("{age.__class__}", FULL)


def test_cell_text() -> None:
    assert cell_text(" a ") == "a"
    assert cell_text(True) == "True"
    assert cell_text(-3.0) == "-3"
    assert cell_text(1e-5) == "1e-05"
    assert cell_text(datetime.date(2020, 1, 2)) == "2020-01-02"
    assert cell_text("3.0.1") == "3.0.1"


def test_join_text() -> None:
    assert join_text("55-year-old male", "Itches.") == "55-year-old male. Itches."
    assert join_text("55-year-old male.", "Itches.") == "55-year-old male. Itches."
    assert join_text("", " Itches. ") == "Itches."
    assert join_text("55-year-old male", None) == "55-year-old male"
    assert join_text(None, " ") is None
