"""What a user says about narratives. A plain dataclass: importing this module loads no heavy library."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class NarrativeConfig:
    """How narratives are written.

    Attributes:
        template: sentence made from metadata columns, as ``dataset.text_template``; None takes that one.
        knowledge: passages to retrieve from: ``dermatology`` or ``spine`` (shipped), a ``.jsonl`` or ``.csv`` file with
            ``text`` and, if wanted, ``id``, ``weight``, ``tags`` and ``source``; None appends nothing.
        retriever: ``bm25``, ``tfidf`` or ``dense`` (sentence vectors).
        top_k: passages per narrative, at most.
        encoder: text encoder of the dense retriever: ``minilm``, a transformers folder or a Hub id.
        weighting: weights of the passages from their scores: ``softmax`` or ``share``.
        temperature: of the softmax; small values favour the best passage.
        max_tokens: budget of the whole text; None has no limit. Passages are cut at whole sentences.
        tokenizer: counts the tokens: ``minilm``, a transformers folder or a Hub id; None counts words.
        synonyms: JSON file that maps labels to further words that would give them away; None takes those that come with
            shipped knowledge.
        on_leak: ``remove`` takes out what would give the label away; ``refuse`` stops at it.
        leaking_columns: further metadata columns that must not enter a text; ``dx``, ``dx_type``, ``diagnosis`` and the
            label column never do.
    """

    template: str | None = None
    knowledge: str | None = None
    retriever: str = "bm25"
    top_k: int = 2
    encoder: str = "minilm"
    weighting: str = "softmax"
    temperature: float = 1.0
    max_tokens: int | None = None
    tokenizer: str | None = None
    synonyms: str | None = None
    on_leak: str = "remove"
    leaking_columns: list[str] | None = None
