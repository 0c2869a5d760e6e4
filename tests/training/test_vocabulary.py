"""What of the training texts enters a saved model."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmfusion.data import Processor
from mmfusion.inference.predictor import Predictor
from mmfusion.text.tokenizer import known_words
from mmfusion.training import PrivacyConfig, RunConfig, train
from mmfusion.training.check import check_settings

NAME = "quzwyxqvj"


@pytest.fixture
def named(toy: Path, tmp_path: Path) -> Path:
    """The toy data with a name in all six training texts of one patient; the other patients have two rows each."""
    with (toy / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row["group"] = "patient 0" if i < 6 else f"patient {i // 2}"
        row["text"] += f" Mr {NAME.upper()}." if i < 6 else ""
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return tmp_path


def test_a_name_of_one_patient_is_told_and_not_saved(
    make_config: Callable[..., RunConfig], named: Path, toy: Path, capsys: Any
) -> None:
    config = make_config("model", model="plain", epochs=1, precision="fp32")
    config.data, config.dataset.group_column, config.dataset.image_root = str(named), "group", str(toy)
    result = train(config)
    told = [line for line in capsys.readouterr().out.splitlines() if ": text: " in line]
    assert told[0].startswith("train: text: 6 of 24 rows have words that the model's tokenizer does not know (12, ")
    tokenizer = Processor.from_pretrained(result.best).tokenizer
    assert tokenizer is not None and {"patient", "years", "spot"} <= set(known_words(tokenizer) or ())
    assert not {piece for piece in tokenizer.get_vocab() if len(piece.removeprefix("##")) > 1 and piece in NAME}
    for folder in (result.best, result.last):
        saved = [path for path in folder.iterdir() if path.suffix in (".json", ".md")]
        assert len(saved) >= 4 and not any(NAME in path.read_text(encoding="utf-8").lower() for path in saved)


def test_every_age_has_a_probability_of_its_own(trained: RunConfig, caplog: pytest.LogCaptureFixture) -> None:
    predictor = Predictor.from_pretrained(f"local-dir:{trained.output}")
    rows = [{"text": f"a red spot, patient of {age} years"} for age in range(100)]
    probabilities = [tuple(found["probabilities"].values()) for found in predictor.predict(rows)]
    assert len(set(probabilities)) == 100
    assert not [record for record in caplog.records if "does not know" in record.getMessage()]


def test_the_number_of_patients_is_checked(make_config: Callable[..., RunConfig]) -> None:
    assert PrivacyConfig().min_patients == 5
    config = make_config()
    config.privacy.min_patients = 0
    with pytest.raises(ValueError, match=r"^privacy\.min_patients must be at least 1; got 0\.$"):
        check_settings(config)
