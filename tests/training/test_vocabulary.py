"""Words of the training texts in a saved model."""

from __future__ import annotations

import csv
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmfusion.artifacts.traces import traces_in
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
    lines = capsys.readouterr().out.splitlines()
    assert "values and words of fewer than 5 patients are not learned (privacy.min_patients)" in lines
    told = [line for line in lines if ": text: " in line]
    assert told[0].startswith("train: text: 6 of 24 rows have words that the model's tokenizer does not know (12, ")
    tokenizer = Processor.from_pretrained(result.best).tokenizer
    assert tokenizer is not None and {"patient", "years", "spot"} <= set(known_words(tokenizer) or ())
    assert not {piece for piece in tokenizer.get_vocab() if len(piece.removeprefix("##")) > 1 and piece in NAME}
    for folder in (result.best, result.last):
        saved = [path for path in folder.iterdir() if path.suffix in (".json", ".md")]
        assert len(saved) >= 4 and not any(NAME in path.read_text(encoding="utf-8").lower() for path in saved)


def test_of_a_thousand_names_none_is_saved(make_config: Callable[..., RunConfig], toy: Path, tmp_path: Path) -> None:
    """Each name is in the texts and a column of at most two patients, and in the image file names."""
    rng = random.Random(0)
    names = sorted({"".join(rng.choices("qxzjkvw", k=9)) for _ in range(1000)})
    with (toy / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for i, row in enumerate(rows):
        row["group"] = f"patient {i // 2}"
        row["nurse"] = names[i // 2]
        row["image"] = f"{names[i]}.png"
        (tmp_path / row["image"]).symlink_to(toy / f"case{i}.png")
    for i, name in enumerate(names):
        for row in rng.sample(rows, 1 + i % 2):
            row["text"] += f" {rng.choice([name, name.title(), name.upper()])}"
    with (tmp_path / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    config = make_config("model", model="plain", epochs=1, precision="fp32")
    config.data, config.dataset.group_column = str(tmp_path), "group"
    config.dataset.follow_links = True
    config.dataset.table_columns, config.dataset.on_bad_column = ["nurse"], "keep"
    config.model.table_encoder = "table_mlp"
    result = train(config)
    tokenizer = Processor.from_pretrained(result.best).tokenizer
    assert tokenizer is not None and "spot" in (known_words(tokenizer) or ())
    pieces = {piece.removeprefix("##") for piece in tokenizer.get_vocab()}
    assert not {piece for piece in pieces if len(piece) > 1 and any(piece in name for name in names)}
    for folder in (result.best, result.last):
        texts = [path.read_bytes().lower() for path in folder.iterdir()]
        assert len(texts) >= 6 and not [name for name in names if any(name.encode() in text for text in texts)]
        assert traces_in(folder) == []


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
