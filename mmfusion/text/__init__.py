"""Text: sentences from metadata, words in any script, tokenizers, and a guard against label words."""

from typing import TYPE_CHECKING

from mmfusion.lazy import attach

if TYPE_CHECKING:
    from mmfusion.text.guard import LeakGuard as LeakGuard, read_synonyms as read_synonyms
    from mmfusion.text.template import render as render
    from mmfusion.text.tokenizer import fit_wordpiece as fit_wordpiece, load_tokenizer as load_tokenizer

__getattr__, __dir__ = attach(__name__)
