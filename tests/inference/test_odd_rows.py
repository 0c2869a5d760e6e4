"""Rows with invalid texts from applications, and output of rows with unusual names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from mmfusion.data import DatasetConfig, Processor, fit_wordpiece
from mmfusion.inference.predictions_csv import without_formula
from mmfusion.inference.predictor import Predictor
from mmfusion.inference.run import predict_path
from mmfusion.models import create_model


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    tokenizer = fit_wordpiece(["a red spot that itches"], 128)
    model = create_model("test_text", num_classes=2, text_args={"vocab_size": len(tokenizer)})
    return Predictor(model, Processor(["a", "b"], tokenizer=tokenizer, max_length=8))


@pytest.mark.parametrize(
    ("text", "words"),
    [(["a"], "got list"), (b"abc", "got bytes"), ({"a": 1}, "got dict"), ("\ud800", "half of a character")],
)
def test_what_is_no_text_is_an_error_of_its_row(predictor: Predictor, text: Any, words: str) -> None:
    with pytest.raises((TypeError, ValueError), match=words):
        predictor.processor.encode_row({"text": text})
    assert predictor.predict([{"text": 5}])[0]["label"] in "ab"  # as a table has it


def test_a_text_is_cut_before_it_is_tokenized(predictor: Predictor, monkeypatch: Any) -> None:
    seen: list[int] = []
    tokenizer = predictor.processor.tokenizer
    assert tokenizer is not None
    called = type(tokenizer).__call__

    def watched(self: Any, text: str, **how: Any) -> Any:
        seen.append(len(text))
        return called(self, text, **how)

    monkeypatch.setattr(type(tokenizer), "__call__", watched)
    text = "a red spot " * 100_000
    whole, short = (predictor.processor.encode_row({"text": part}) for part in (text, text[:800]))
    assert whole["input_ids"] == short["input_ids"] and max(seen) == 800


def test_formulas_are_escaped_where_asked_for(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id,image,text\n=1+1,,red\n-5,,red\n@a,,spot\n")
    plain, escaped = tmp_path / "plain.csv", tmp_path / "escaped.csv"
    dataset = DatasetConfig(id_column="id")
    predict_path(predictor, tmp_path / "t.csv", plain, dataset=dataset)
    done = predict_path(predictor, tmp_path / "t.csv", escaped, dataset=dataset, escape_formulas=True)
    assert [line.split(",")[0] for line in plain.read_text().splitlines()[1:]] == ["=1+1", "-5", "@a"]
    assert done.frame()["id"].tolist() == ["'=1+1", "-5", "'@a"]
    assert [without_formula(cell) for cell in ("\tx", "+a", "a=b", -1.5, "")] == ["'\tx", "'+a", "a=b", -1.5, ""]
