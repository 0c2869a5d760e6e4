"""Text: sentences from metadata, words in any script, tokenizers, and a guard against words that tell the label.

Names are resolved on first use, so that importing this package loads no heavy library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mmfusion.lazy import exports

_MODULES = {
    "render": "template",
    "fit_wordpiece": "tokenizer",
    "load_tokenizer": "tokenizer",
    "LeakGuard": "guard",
    "read_synonyms": "guard",
}
__all__ = [*_MODULES]

if TYPE_CHECKING:
    from mmfusion.text.guard import LeakGuard as LeakGuard
    from mmfusion.text.guard import read_synonyms as read_synonyms
    from mmfusion.text.template import render as render
    from mmfusion.text.tokenizer import fit_wordpiece as fit_wordpiece
    from mmfusion.text.tokenizer import load_tokenizer as load_tokenizer

__getattr__, __dir__ = exports(__name__, _MODULES)
