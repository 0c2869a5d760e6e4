"""Personal and machine data in the texts of a saved model stop push and export."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import mmfusion
from mmfusion.artifacts.config import PushConfig
from mmfusion.artifacts.publishing import contents
from mmfusion.artifacts.push import push
from mmfusion.artifacts.shipped import shipped
from mmfusion.artifacts.traces import traces_in, traces_of
from mmfusion.data import Processor, fit_wordpiece
from mmfusion.exporting import export_model


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        *(
            ("seen 2019-03-04", "a date"),
            ("born 4.3.1957", "a date"),
            ("04/03/57", "a date"),
            ("3 March 2019", "a date"),
        ),
        *(("see ISIC_0024306.jpg", "an id"), ("patient 0017", "an id"), ("MRN: 48213", "an id"), ("7712345", "an id")),
        *(("1.2.840.113619.2.55.3", "an id"), ("+49 30 1234567", "an id")),
        *(
            ("/home/smith/data", "a path"),
            (r"C:\Users\smith", "a path"),
            ("file://x", "a path"),
            ("../cases.csv", "a path"),
        ),
        *(
            ("hf_abcdefghijklmnopqrstuvwx", "a key"),
            ("password=hunter2", "a key"),
            ("-----BEGIN PRIVATE KEY-----", "a key"),
        ),
        *(("write to a.b@clinic.org", "an e-mail address"), ("Dr. Müller", "a name"), ("John Smith", "a name")),
        *(
            (text, None)
            for text in (
                *("HAM10000", "mibf_lite0.ham10000", "vit_base_patch16_224", "55-year-old male, back", "2.14.1"),
                *("hf-hub:org/name@v1.0", "cc-by-nc-4.0", "Tschandl et al. 2018", "10,015 rows", "125acbcebc654def"),
                *(
                    "https://doi.org/10.1038/sdata.2018.161",
                    "temperature 1.455 from 1,002 val rows",
                    "actinic keratosis",
                ),
            )
        ),
    ],
)
def test_what_is_found(text: str, kind: str | None) -> None:
    kinds = {trace.kind for trace in traces_of({"config.json": {"card": {"limits": text}}})}
    assert kinds == ({kind} if kind else set())


def test_vocabularies_and_columns() -> None:
    table: dict[str, Any] = {"numeric": [], "categorical": [{"name": "surname", "values": ["Dr Weber"]}]}
    texts: dict[str, Any] = {"config.json": {"processor": {"text_template": "{age} {dob}", "table": table}}}
    texts["tokenizer.json"] = {"model": {"vocab": {"jennifer": 1, "##ist": 2, "mole": 3}}}
    found = [(trace.kind, trace.text) for trace in traces_of(texts)]
    assert ("a name", "jennifer") in found and ("a name", "Dr Weber") in found
    assert ("a column of a person", "surname") in found and ("a column of a person", "dob") in found
    published = {f"w{i}": i for i in range(9000)} | {"jennifer": 9000}
    assert not traces_of({"tokenizer.json": {"model": {"vocab": published}}})


def test_the_shipped_weights_hold_none() -> None:
    found = {weights: traces_in(weights.folder) for weights in shipped() if weights.package == "mmfusion"}
    assert found and not any(found.values())


@pytest.fixture
def named(tmp_path: Path) -> Path:
    """A model whose card names somebody."""
    processor = Processor(["no", "yes"], tokenizer=fit_wordpiece(["a red spot"] * 5), max_length=16)
    model = mmfusion.create_model("test_text", processor=processor)
    card = {"card": {"limits": "Of the rows of Dr Weber, /home/weber/rows."}}
    return mmfusion.save_pretrained(model, tmp_path / "m", processor, metadata=card)


def test_a_push_is_stopped_and_what_is_let_through_is_told(named: Path, no_network: None, monkeypatch: Any) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    with pytest.raises(ValueError, match=r"a name in config\.json, card, limits: 'Dr Weber'.*--force"):
        push(PushConfig(str(named), "org/name"))
    plan = push(PushConfig(str(named), "org/name", dry_run=True))
    assert "--force would be needed because of" in plan.summary() and "'Dr Weber'" in plan.summary()
    with pytest.raises(PermissionError, match="no access token"):  # which is asked for last
        push(PushConfig(str(named), "org/name", force=True))
    card = contents(named, "org/name", traces_in(named))["README.md"]
    assert isinstance(card, bytes)
    assert "with `--force` although its texts contain: a path in config.json, card, limits; a name in" in card.decode()
    (named / "README.md").write_text("my own words")
    card = contents(named, "org/name", traces_in(named))["README.md"]
    assert isinstance(card, bytes) and card.startswith(b"my own words\n\nPublished with --force: a path in config.json")


def test_an_export_is_stopped(named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(_: object, path: Path, **__: object) -> float:
        path.write_bytes(b"program")
        return 0.0

    monkeypatch.setattr("mmfusion.exporting.artifact.write_program", write)
    with pytest.raises(ValueError, match=r"a name in config\.json, card, limits"):
        export_model(named, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_model(named, tmp_path / "out", force=True)
    assert "with `--force` although its texts contain: a path" in (tmp_path / "out" / "README.md").read_text()
    assert '"model.onnx"' in (tmp_path / "out" / "files.json").read_text()


def test_metrics_of_a_saved_model_name_no_row(named: Path) -> None:
    error = {"row": 3, "id": "case7.png", "true_label": "no", "label": "yes"}
    error |= {"probability": 0.9, "probability_of_true_label": 0.1}
    model = mmfusion.create_model(f"local-dir:{named}")
    mmfusion.models.save_model(model, named, metrics={"worst_errors": [error]})
    assert "case7" not in (named / "metrics.json").read_text()
