"""The tokenizer beside a saved model, checked before it is used."""

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
    """Read ``tokenizer.json`` of a folder; FileNotFoundError without one, ValueError where it is damaged."""
    from transformers import PreTrainedTokenizerFast

    path = folder / "tokenizer.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist, and the processor needs its tokenizer.")
    check_files(folder, *TOKENIZER)
    try:
        check_tokenizer(path)
        with no_network():
            tokenizer = PreTrainedTokenizerFast.from_pretrained(str(folder), local_files_only=True)
        for text in PROBES:  # some faults show in use alone
            tokenizer(text, truncation=True, max_length=8)
        if not isinstance(tokenizer.model_max_length, int | float):
            raise ValueError("model_max_length of tokenizer_config.json is no number")
        known = known_words(tokenizer)
        if known is not None and not (isinstance(known, list) and all(isinstance(word, str) for word in known)):
            raise ValueError("known_words of tokenizer_config.json is no list of words")
        return tokenizer
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the Rust tokenizers raise plain Exception, and BaseException where they panic
        raise ValueError(f"the tokenizer beside it cannot be read: {one_line(error)}") from error
