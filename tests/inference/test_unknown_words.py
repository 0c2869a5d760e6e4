"""Unknown words and truncated texts are reported with a count wherever rows are read."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mmfusion.data import Processor, fit_wordpiece
from mmfusion.evaluation import evaluate
from mmfusion.evaluation.config import EvaluateConfig
from mmfusion.inference.predictor import Ensemble, Predictor
from mmfusion.inference.run import predict_path
from mmfusion.models import create_model

UNKNOWN = (
    "text: 2 of 5 rows have words that the model's tokenizer does not know (3, e.g. 'Acral', 'lentiginous', 'left')"
)
CUT = "text: 1 of 5 rows (20.0%) are longer than the model's token budget and were cut"

ROWS = [
    {"text": "57-year-old male, 3.5 kg"},
    {"text": "Acral lentiginous, male"},
    {"text": "left"},
    {"text": " ".join(["male"] * 30)},
    {"text": ""},
]


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    torch.manual_seed(0)
    tokenizer = fit_wordpiece(["year old male kg"] * 2, min_groups=2)
    model = create_model("test_text", num_classes=2, text_args={"vocab_size": len(tokenizer)})
    return Predictor(model, Processor(["a", "b"], tokenizer=tokenizer, max_length=24), name="tiny")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records if record.getMessage().startswith("text:")]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "cases.csv"
    lines = [f'{i},,"{row["text"] or "male"}",{"ab"[i % 2]},test' for i, row in enumerate(ROWS)]
    path.write_text("\n".join(["id,image,text,label,split", *lines]) + "\n")
    return path


def test_rows_of_an_application(predictor: Predictor, told: Callable[[], list[str]]) -> None:
    predictor.predict(ROWS, batch_size=2)
    assert told() == [UNKNOWN, CUT]


def test_known_words_and_any_number_are_told_nothing_of(predictor: Predictor, told: Callable[[], list[str]]) -> None:
    predictor.predict([{"text": f"{age}-year-old male, {age / 10} kg"} for age in range(10)])
    assert told() == []


def test_models_that_agree_tell_it_once(predictor: Predictor, told: Callable[[], list[str]]) -> None:
    Ensemble([predictor, predictor]).predict(ROWS)
    assert told() == [UNKNOWN, CUT]


def test_a_table(predictor: Predictor, table: Path, told: Callable[[], list[str]]) -> None:
    predict_path(predictor, table, table.with_name("predictions.csv"))
    assert told() == [UNKNOWN, CUT]


def test_an_evaluation(predictor: Predictor, table: Path, told: Callable[[], list[str]], tmp_path: Path) -> None:
    predictor.save_pretrained(tmp_path / "model")
    evaluate(EvaluateConfig([f"local-dir:{tmp_path / 'model'}"], str(table), output=str(tmp_path / "evaluation")))
    assert told() == [UNKNOWN, CUT]


def test_the_card_says_what_the_model_reads(predictor: Predictor, tmp_path: Path) -> None:
    predictor.save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    lines = card[card.index("- Text: ") :].splitlines()[:4]
    assert lines == [
        "- Text: free text",
        "  - up to 24 tokens; the rest is truncated",
        f"  - {len(predictor.processor.tokenizer)} word pieces, 4 of them whole words; "
        "others are split into pieces down to single characters",
        "  - each digit is a token",
    ]
