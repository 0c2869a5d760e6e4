"""Loads and checks the tokenizer of a saved model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mmfusion.artifacts.integrity import check_files
from mmfusion.artifacts.names import TOKENIZER
from mmfusion.names import one_line
from mmfusion.repositories import no_network
from mmfusion.text.foreign import PROBES, check_tokenizer
from mmfusion.text.tokenizer import known_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


def saved_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """Read ``tokenizer.json`` of a folder; FileNotFoundError if missing, ValueError if damaged."""
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, but the processor needs its tokenizer.")
    check_files(folder, *TOKENIZER)
    try:
        check_tokenizer(path)
        with no_network():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        for text in PROBES:  # some faults only appear in use
            tokenizer(text, truncation=True, max_length=8)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise ValueError("model_max_length of tokenizer_config.json is not a number")
        known = known_words(tokenizer)
        if known is not None and not (isinstance(known, list) and all(isinstance(word, str) for word in known)):
            raise ValueError("known_words of tokenizer_config.json is not a list of words")
        return tokenizer
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # Rust tokenizers raise plain Exception, and BaseException on a panic
        raise ValueError(f"the tokenizer cannot be read: {one_line(error)}") from error
