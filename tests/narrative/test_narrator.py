from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mmfusion import registry
from mmfusion.cli import main as cli
from mmfusion.data import DatasetConfig, fit_wordpiece, read_cases
from mmfusion.narrative import (
    LeakGuard,
    NarrateConfig,
    NarrativeConfig,
    Narrator,
    Passage,
    create_retriever,
    narrate,
)
from mmfusion.narrative.run import build_narrator

TEMPLATE = "{age}-year-old {sex}, lesion on the {localization}"
TEXTS = ["Sun.", "Shade on the back."]
KNOWLEDGE = [
    Passage("back", "The back is broad. It gets sun.", tags=("back",)),
    Passage("face", "Melanoma of the face is seen. The face gets sun daily.", tags=("face",)),
    Passage("forties", "Spots fade. New ones appear. All is quiet.", tags=("40s",)),
    Passage("arm", "An arm has two sides.", tags=("upper extremity",)),
    Passage("leg", "A leg has a shin.", tags=("lower extremity",)),
    Passage("gone", "Melanoma everywhere."),
]
GUARD = LeakGuard(["mel", "nv"], {"mel": ["melanoma"], "nv": ["nevus"]})
ROW = {"age": 45.0, "sex": "male", "localization": "back"}


def narrator(**keywords) -> Narrator:
    keywords = {"template": TEMPLATE, "retriever": "tfidf", "knowledge": KNOWLEDGE, "guard": GUARD} | keywords
    return Narrator(**keywords)


def test_narrative_of_a_row() -> None:
    found = narrator().narrate(ROW)
    assert found.query == "45 male back 40s"
    assert [passage.id for passage in found.passages] == ["back", "forties"]
    assert found.text == (
        "45-year-old male, lesion on the back. "
        "The back is broad. It gets sun. Spots fade. New ones appear. All is quiet."
    )
    assert narrator()(ROW) == found.text
    assert narrator(top_k=0)(ROW) == narrator(knowledge=None)(ROW) == "45-year-old male, lesion on the back"
    assert narrator()({}) == "" and narrator()({"sex": "unknown", "text": "Itches."}) == "Itches."


def test_several_words_are_one_term() -> None:
    (passage,) = narrator().narrate({"localization": "lower extremity"}).passages
    assert passage.id == "leg"


def test_query_is_made_of_metadata_only() -> None:
    plain, told = narrator().narrate(ROW), narrator().narrate({**ROW, "text": "Face, leg and shin.", "label": "face"})
    assert told.query == plain.query and told.passages == plain.passages
    assert told.text.startswith("45-year-old male, lesion on the back. Face, leg and shin. The back is broad.")


@pytest.mark.parametrize("retriever", ["bm25", "tfidf"])
def test_weights(retriever: str) -> None:
    if retriever == "bm25":
        pytest.importorskip("bm25s")
    kept = [passage for passage in KNOWLEDGE if passage.id != "gone"]
    texts = [passage.text.replace("Melanoma of the face is seen. ", "") for passage in kept]
    tags = [["".join(tag.split()) for tag in passage.tags] for passage in kept]
    scores = create_retriever(retriever, texts, tags).scores("45 male back 40s")
    two = np.sort(scores)[::-1][:2]
    for keywords, expected in (
        ({"temperature": 0.5}, np.exp(two / 0.5) / np.exp(two / 0.5).sum()),
        ({"weighting": "share"}, two / two.sum()),
    ):
        found = narrator(retriever=retriever, **keywords).narrate(ROW).passages
        np.testing.assert_allclose([passage.score for passage in found], two, atol=1e-6)
        np.testing.assert_allclose([passage.weight for passage in found], expected, atol=1e-5)
    heavy = [Passage(p.id, p.text, 10.0 if p.id == "forties" else 1.0, p.tags) for p in KNOWLEDGE]
    assert narrator(retriever=retriever, knowledge=heavy).narrate(ROW).passages[0].id == "forties"


def test_ties_keep_the_order_of_the_file() -> None:
    same = [Passage(str(i), "The back.") for i in range(20)]
    assert [p.id for p in narrator(knowledge=same, top_k=3).narrate(ROW).passages] == ["0", "1", "2"]


def test_budget_holds_whole_sentences() -> None:
    # the sentence has 6 words; "back" 4 + 3, "forties" 2 + 3 + 3
    texts = {budget: narrator(max_tokens=budget)(ROW) for budget in range(1, 25)}
    whole = {part.strip(".") for passage in KNOWLEDGE for part in passage.text.split(". ")}
    for budget, text in texts.items():
        assert len(text.split()) <= max(budget, 6)
        assert {part.strip(".") for part in text.split(". ")[1:]} <= whole
    assert texts[7] == "45-year-old male, lesion on the back"
    assert texts[8].endswith("back. Spots fade.")
    assert texts[10].endswith("back. The back is broad.")
    assert texts[12].endswith("back. The back is broad. Spots fade.")
    assert texts[21] == texts[24] == narrator()(ROW)
    assert texts[20].endswith("It gets sun. Spots fade. New ones appear.")


def test_budget_in_tokens() -> None:
    tokenizer = fit_wordpiece([TEMPLATE, *(passage.text for passage in KNOWLEDGE), "45 male"], 300)
    for budget in (20, 28, 40):
        limited = narrator(max_tokens=budget, tokenizer=tokenizer)
        assert len(tokenizer(limited(ROW))["input_ids"]) <= budget
    assert limited(ROW) == narrator()(ROW)


def test_label_words_are_removed_or_refused() -> None:
    guarded = narrator()
    assert guarded.removed == {"face": ["Melanoma"], "gone": ["Melanoma"]}
    assert [p.id for p in guarded.passages] == ["back", "face", "forties", "arm", "leg"]
    assert guarded({"localization": "face"}) == "lesion on the face. The face gets sun daily."
    leaked = guarded.narrate({"localization": "nevus of the back", "text": "Old NV, biopsy: melanoma."})
    assert leaked.removed == ("nevus", "NV", "melanoma")
    assert leaked.text.startswith("lesion on the of the back. Old, biopsy.") and leaked.query == "of the back"
    with pytest.raises(ValueError, match="passage 'face' reveals the label by 'Melanoma'"):
        narrator(on_leak="refuse")
    strict = narrator(on_leak="refuse", knowledge=KNOWLEDGE[:1])
    with pytest.raises(ValueError, match="'nv'"):
        strict({"text": "an nv"})


def test_leaking_columns() -> None:
    template = TEMPLATE + ", found by {dx_type}"
    guarded = narrator(template=template)
    assert guarded.dropped_columns == ["dx_type"] and guarded.fields == ["age", "sex", "localization"]
    assert guarded({**ROW, "dx_type": "back"}) == narrator()(ROW)
    for keywords in ({"template": template, "on_leak": "refuse"}, {"template": "{dx}"}):
        with pytest.raises(ValueError, match=r"'dx(_type)?' reveals the label"):
            narrator(**keywords)


@pytest.mark.parametrize(
    "keywords",
    [
        {"top_k": -1},
        {"weighting": "max"},
        {"on_leak": "ask"},
        {"temperature": 0},
        {"max_tokens": 0},
        {"retriever": "bm"},
    ],
)
def test_arguments_out_of_range(keywords: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(keywords.values()))}"):
        narrator(**keywords)


def test_shipped_knowledge_brings_its_synonyms() -> None:
    shipped = Narrator(TEMPLATE, "tfidf", knowledge="dermatology")
    assert "Grows" in shipped({**ROW, "text": "Grows, melanoma?"}) and shipped.guard.find("Melanoma")
    assert shipped.narrate(ROW).passages[0].id == "site-back"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    (root / "images").mkdir(parents=True)
    lines = ["image,dx,age,sex,localization,dx_type,patient,split,text"]
    cells = ["nv,45.0,male,back,histo,p1,train,", "mel,,female,face,histo,p2,test,Old nevus", "mel,,,,,p1,train,"]
    for i, row in enumerate(cells):
        Image.new("RGB", (8, 8)).save(root / "images" / f"b{2 - i}.jpg")
        lines.append(f"b{2 - i}.jpg,{row}")
    (root / "table.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "k.jsonl").write_text("".join(json.dumps({"text": p.text, "tags": p.tags}) + "\n" for p in KNOWLEDGE))
    return root


def _narrate(root: Path, output: Path, config: NarrativeConfig, dataset: DatasetConfig) -> dict[str, Any]:
    return narrate(NarrateConfig(str(root), str(output), config, dataset)).facts


def test_written_data_set_reads_back(root: Path, tmp_path: Path) -> None:
    config = NarrativeConfig(TEMPLATE, str(tmp_path / "k.jsonl"), "tfidf")
    config.synonyms = str(tmp_path / "words.json")
    Path(config.synonyms).write_text('{"mel": ["melanoma"], "nv": ["nevus"]}')
    dataset = DatasetConfig(label_column="dx", group_column="patient")
    summary = _narrate(root, tmp_path / "out", config, dataset)
    assert summary["removed_from_rows"] == {"nevus": 1} and summary["without_text"] == 1
    assert summary["removed_from_passages"] == {"passage-2": ["Melanoma"], "passage-6": ["Melanoma"]}
    written = {
        name: (tmp_path / "out" / name).read_bytes() for name in ("image.csv", "response.json", "narrative.json")
    }
    texts = json.loads(written["response.json"])
    assert list(texts) == ["b1.jpg", "b2.jpg"]
    assert texts["b1.jpg"] == "female, lesion on the face. Old. The face gets sun daily."
    with (tmp_path / "out" / "image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["image", "label", "group", "split", "age", "sex", "localization"]

    _narrate(root, tmp_path / "out", config, dataset)
    assert {name: (tmp_path / "out" / name).read_bytes() for name in written} == written

    cases = read_cases(tmp_path / "out", DatasetConfig(image_root=str(root / "images")))
    assert not cases.problems and cases.frame["id"].tolist() == ["b2.jpg", "b1.jpg", "b0.jpg"]
    assert cases.frame["text"].tolist() == [texts["b2.jpg"], texts["b1.jpg"], None]
    assert cases.frame["label"].tolist() == ["nv", "mel", "mel"] and cases.splits == {"train": 2, "test": 1}
    again = read_cases(tmp_path / "out", DatasetConfig(image_root=summary["image_root"]))
    assert again.frame.equals(cases.frame)


def test_command(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    argv = ["narrate", "--data", str(root), "--output", str(tmp_path / "out"), "--dataset.label_column", "dx"]
    argv += ["--narrative.retriever", "tfidf", "--narrative.knowledge", "dermatology"]
    assert cli.main(argv) == 2
    assert "--narrative.template" in capsys.readouterr().err
    assert cli.main([*argv, "--narrative.template", TEMPLATE + ", {dx_type}"]) == 0
    assert "dx_type, which reveals the label; it is left out" in caplog.text
    out = capsys.readouterr().out
    assert "removed nevus from rows" in out and "--dataset.image_root" in out
    for options, message in (
        (["--narrative.template", "{dx}"], "'dx' reveals the label"),
        (["--narrative.template", "{weight}"], "names 'weight'; the metadata columns are age"),
        (["--narrative.template", TEMPLATE, "--narrative.on_leak", "refuse"], r"Row 'b1.jpg': .*'nevus'"),
        (["--narrative.template", TEMPLATE, "--narrative.synonyms", "none.json"], "none.json do not exist"),
        (["--narrative.template", TEMPLATE, "--output", str(root)], "own table table.csv"),
    ):
        assert cli.main([*argv, *options]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert re.search(message, error)


def test_a_retriever_of_ones_own(root: Path, tmp_path: Path) -> None:
    """A custom retriever registered by name works like the built-in ones."""

    @registry.register("retriever", "longest")
    class Longest:
        """The longest passage has the highest score for every query."""

        reads_sentences = True

        def __init__(self, texts: list[str], tags: Any = None, *, encoder: str = "none") -> None:
            self.encoder, self.lengths = encoder, np.array([float(len(text)) for text in texts])

        def scores(self, query: str) -> np.ndarray:
            return self.lengths

    try:
        assert create_retriever("longest", TEXTS).scores("sun").argmax() == 1
        with pytest.raises(TypeError, match=r"retriever 'longest': .*it takes texts, tags, encoder"):
            create_retriever("longest", TEXTS, k1=2)
        config = NarrativeConfig("{age}-year-old", str(tmp_path / "k.jsonl"), "longest", top_k=1, encoder="mine")
        _narrate(root, tmp_path / "out", config, DatasetConfig(label_column="dx"))
        passages = [json.loads(line)["text"] for line in (tmp_path / "k.jsonl").read_text().splitlines()]
        text = json.loads((tmp_path / "out" / "response.json").read_text())["b2.jpg"]
        assert text == f"45-year-old. {max(passages, key=len)}"
        narrator = build_narrator(
            config, read_cases(root, DatasetConfig(label_column="dx")), DatasetConfig(label_column="dx")
        )
        assert narrator._retriever.encoder == "mine"
    finally:
        registry.unregister("retriever", "longest")


def test_one_image_with_two_texts_is_refused(root: Path, tmp_path: Path) -> None:
    path = root / "table.csv"
    table = path.read_text().replace("b1.jpg,mel,,", "b2.jpg,mel,50,").replace("patient,split", "id,split")
    path.write_text(table.replace("b0.jpg,mel,,,,,p1", "b0.jpg,mel,,,,,p3"))
    with pytest.raises(ValueError, match=r"'b2\.jpg' has two rows"):
        _narrate(root, tmp_path / "out", NarrativeConfig(TEMPLATE, None, "tfidf"), DatasetConfig(id_column="id"))


def test_studies_and_views_read_as_before(root: Path, tmp_path: Path) -> None:
    table = "file,t1,t2,label,study,age\nb0.jpg,b0.jpg,b1.jpg,nv,s1,40\nb2.jpg,,b2.jpg,mel,s1,40\n"
    (root / "table.csv").write_text(table)
    config = NarrativeConfig("{age}-year-old", None, "tfidf")
    for reading in (
        DatasetConfig(view_columns=["t1", "t2"]),
        DatasetConfig(image_column="file", study_column="study", label_column="label"),
    ):
        before = read_cases(root, reading, require_labels=False)
        summary = _narrate(root, tmp_path / "out", config, reading)
        written = DatasetConfig(
            format="report",
            image_root=summary["image_root"],
            study_column=reading.study_column,
            view_columns=reading.view_columns,
        )
        after = read_cases(tmp_path / "out", written, require_labels=False)
        assert after.frame["image"].tolist() == before.frame["image"].tolist()
        assert set(after.frame["text"]) == {"40-year-old"}
