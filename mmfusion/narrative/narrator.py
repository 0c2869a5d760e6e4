"""A patient's narrative: a sentence from metadata, the patient's own text, retrieved passages (report eq. 25-26)."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mmfusion.data.config import DatasetConfig
from mmfusion.narrative.passages import Passage, read_knowledge
from mmfusion.narrative.retrieval import create_retriever
from mmfusion.text.guard import LeakGuard, list_synonyms, read_synonyms
from mmfusion.text.template import cell_text, join_text, render, template_fields
from mmfusion.text.words import sentences, words

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Retrieved:
    """A passage as a narrative has it.

    Attributes:
        id: of the passage.
        score: nearness to the query, times the passage's own weight.
        weight: share among the retrieved passages; they sum to 1.
        text: the sentences that entered the narrative; empty where the budget had no room.
    """

    id: str
    score: float
    weight: float
    text: str


@dataclass(frozen=True)
class Narrative:
    """A narrative and where it comes from.

    Attributes:
        text: the whole narrative.
        query: what the passages were retrieved by.
        passages: the retrieved passages, by descending weight.
        removed: label words that were taken out of the patient's part.
    """

    text: str
    query: str
    passages: tuple[Retrieved, ...] = ()
    removed: tuple[str, ...] = ()


class Narrator:
    """x' = [x; sum_j w_j d_j]: the patient's text x, then the top passages d_j by descending weight w_j.

    The query comes from the metadata that the template names, and from nothing else: a free text may have been written
    by someone who knew the diagnosis. Lexical retrievers are asked for the values alone, for a value of several words
    as one term beside them (``lower extremity`` finds the tag of that name, not ``upper extremity``), and for numbers
    by their decade (age 47: ``40s``); the dense one is asked for the template's sentence. The same row gives the same
    narrative, whatever came before. The weights order the passages, and share the token budget among them: each
    passage gets whole sentences up to its share, then what is left goes to the next sentences in order of weight.

    Args:
        template: sentence made from metadata, with ``{column}`` fields (:func:`mmfusion.data.render`).
        retriever: ``bm25``, ``tfidf`` or ``dense``.
        top_k: passages at most; one that has nothing in common with the query is not taken.
        knowledge: shipped name, file, or passages (texts will do); None appends nothing.
        guard: what must not enter the text; None guards against the synonyms of shipped knowledge and leaking columns.
        on_leak: ``remove`` takes label words out of metadata and free text, sentences with label words out of passages,
            and leaking columns out of the template; ``refuse`` raises instead.
        weighting: ``softmax``, w = softmax(s / temperature); or ``share``, w = s / sum(s).
        temperature: of the softmax.
        max_tokens: budget of the text, with the tokenizer's special tokens. The patient's part is never cut.
        tokenizer: a transformers tokenizer that counts the tokens; None counts words.
        missing_values: texts (any case) that count as missing in metadata.
        retriever_args: keywords of the retriever, e.g. ``{"encoder": "minilm"}`` of the dense one.

    Attributes:
        passages: the passages that can be retrieved, without what the guard took out.
        removed: passage id -> label words that cost it a sentence, or itself.
        dropped_columns: leaking columns that the template named.

    Raises:
        ValueError: an argument out of range, no field left in the template, or a leak with ``on_leak="refuse"``.
        FileNotFoundError: the knowledge file does not exist.
        ImportError: the retriever's library is not installed; the message has the line that installs it.
    """

    def __init__(
        self,
        template: str,
        retriever: str = "bm25",
        top_k: int = 2,
        *,
        knowledge: str | Path | Iterable[Passage | str] | None = None,
        guard: LeakGuard | None = None,
        on_leak: str = "remove",
        weighting: str = "softmax",
        temperature: float = 1.0,
        max_tokens: int | None = None,
        tokenizer: Any = None,
        missing_values: Iterable[str] | None = None,
        retriever_args: Mapping[str, Any] | None = None,
    ) -> None:
        if on_leak not in ("remove", "refuse"):
            raise ValueError(f"on_leak={on_leak!r} is not one of 'remove', 'refuse'.")
        if weighting not in ("softmax", "share"):
            raise ValueError(f"weighting={weighting!r} is not one of 'softmax', 'share'.")
        if top_k < 0:
            raise ValueError(f"top_k={top_k} must be at least 0.")
        if not temperature > 0:
            raise ValueError(f"temperature={temperature} must be above 0.")
        if max_tokens is not None and max_tokens < 1:
            raise ValueError(f"max_tokens={max_tokens} must be at least 1.")
        self.template = template
        self.top_k = top_k
        self.guard = LeakGuard(synonyms=_own_synonyms(knowledge)) if guard is None else guard
        self.on_leak = on_leak
        self.weighting = weighting
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.tokenizer = tokenizer
        self.missing_values = [
            value.lower() for value in (DatasetConfig().missing_values if missing_values is None else missing_values)
        ]
        self.dropped_columns = self._leaking_fields()
        self.removed: dict[str, list[str]] = {}
        self.passages = self._guarded(_passages(knowledge))
        self._found: dict[str, tuple[Retrieved, ...]] = {}
        # The retriever is made where there is nothing to find as well, so that a wrong name never passes in silence.
        self._retriever = create_retriever(
            retriever,
            [passage.text for passage in self.passages],
            [[_term(tag) for tag in passage.tags] for passage in self.passages],
            **dict(retriever_args or {}),
        )

    @property
    def fields(self) -> list[str]:
        """Metadata columns that narratives read."""
        return [name for name in template_fields(self.template) if name not in self.dropped_columns]

    def __call__(self, row: Mapping[str, Any]) -> str:
        """The narrative of a row: :meth:`narrate` without its origin."""
        return self.narrate(row).text

    def narrate(self, row: Mapping[str, Any]) -> Narrative:
        """Write the narrative of a row.

        Args:
            row: metadata columns, and the patient's own words in ``text``, if any. A column that the row lacks is
                missing.

        Raises:
            ValueError: a label word in the row with ``on_leak="refuse"``.
        """
        metadata = {name: row.get(name) for name in self.fields}
        metadata |= dict.fromkeys(self.dropped_columns)
        sentence = render(self.template, metadata, self.missing_values)
        patient = join_text(sentence, cell_text(row.get("text"))) or ""
        if self.on_leak == "refuse":
            self.guard.check(patient)
        removed = tuple(self.guard.find(patient))
        patient = self.guard.clean(patient)
        query = self._query(metadata, sentence)
        passages = self._cut(patient, self._search(query))
        text = patient
        for passage in passages:
            text = join_text(text, passage.text) or ""
        return Narrative(text, query, passages, removed)

    def count_tokens(self, text: str) -> int:
        """Length of a text: tokens with the special ones, or words without a tokenizer."""
        return len(self.tokenizer(text)["input_ids"] if self.tokenizer is not None else text.split())

    def _query(self, metadata: Mapping[str, Any], sentence: str) -> str:
        if self._retriever.reads_sentences:
            return self.guard.clean(sentence)
        values = [cell_text(value, self.missing_values) for value in metadata.values()]
        present = [self.guard.clean(value) for value in values if value is not None]
        terms = [_term(value) for value in present if len(words(value)) > 1]
        decades = [f"{int(float(value)) // 10 * 10}s" for value in present if re.fullmatch(r"\d+(\.\d+)?", value)]
        return " ".join([*present, *terms, *decades])

    def _search(self, query: str) -> tuple[Retrieved, ...]:
        """The top passages with their weights, whole; kept, since metadata repeat."""
        if query not in self._found:
            scores = self._retriever.scores(query) * np.array([passage.weight for passage in self.passages])
            # Rounded, so that equal passages keep their order in the file whatever the machine's arithmetic.
            scores = np.round(scores, 6)
            best = [int(i) for i in np.argsort(-scores, kind="stable")[: self.top_k] if scores[i] > 0]
            weights = self._weights(scores[best])
            self._found[query] = tuple(
                Retrieved(self.passages[i].id, float(scores[i]), float(weight), self.passages[i].text)
                for i, weight in zip(best, weights, strict=True)
            )
        return self._found[query]

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        if not len(scores):
            return scores
        raw = scores if self.weighting == "share" else np.exp((scores - scores.max()) / self.temperature)
        return raw / raw.sum()

    def _cut(self, patient: str, passages: Sequence[Retrieved]) -> tuple[Retrieved, ...]:
        """The passages with as many whole sentences, from their first, as the budget has room for."""
        if self.max_tokens is None or not passages:
            return tuple(passages)
        parts = [sentences(passage.text) for passage in passages]
        taken = [0] * len(parts)
        empty = self.count_tokens("")
        room = self.max_tokens - self.count_tokens(patient)

        def length(counts: Sequence[int]) -> int:
            text = " ".join(" ".join(part[:count]) for part, count in zip(parts, counts, strict=True))
            return self.count_tokens(text) - empty

        for shares in ([passage.weight for passage in passages], [1.0] * len(passages)):
            for i, share in enumerate(shares):
                while taken[i] < len(parts[i]):
                    longer = [count + (j == i) for j, count in enumerate(taken)]
                    own = [count if j == i else 0 for j, count in enumerate(longer)]
                    if length(longer) > room or length(own) > share * room:
                        break
                    taken = longer
        return tuple(
            Retrieved(passage.id, passage.score, passage.weight, " ".join(part[:count]))
            for passage, part, count in zip(passages, parts, taken, strict=True)
        )

    def _leaking_fields(self) -> list[str]:
        fields = template_fields(self.template)
        if self.on_leak == "refuse":
            self.guard.check_columns(fields)
        dropped = self.guard.leaking(fields)
        if dropped and len(dropped) == len(fields):
            self.guard.check_columns(fields)
        if dropped:
            logger.warning("The template names %s, which gives the label away; it is left out.", ", ".join(dropped))
        return dropped

    def _guarded(self, passages: Iterable[Passage]) -> list[Passage]:
        """The passages without sentences that have label words; one without a sentence left is no passage."""
        kept = []
        for passage in passages:
            found = self.guard.find(passage.text)
            if found and self.on_leak == "refuse":
                raise ValueError(
                    f"The passage {passage.id!r} gives the label away by {', '.join(map(repr, dict.fromkeys(found)))}; "
                    "rewrite it, or set on_leak to 'remove'."
                )
            if found:
                self.removed[passage.id] = list(dict.fromkeys(found))
            text = self.guard.clean(passage.text, unit="sentence")
            if text:
                kept.append(Passage(passage.id, text, passage.weight, passage.tags, passage.source))
        return kept


def _term(text: str) -> str:
    """A term of several words as one word."""
    return "".join(words(text))


def _passages(knowledge: str | Path | Iterable[Passage | str] | None) -> list[Passage]:
    if knowledge is None:
        return []
    if isinstance(knowledge, str | Path):
        return read_knowledge(knowledge)
    return [
        item if isinstance(item, Passage) else Passage(f"passage-{number}", item)
        for number, item in enumerate(knowledge, start=1)
    ]


def _own_synonyms(knowledge: Any) -> dict[str, list[str]]:
    return read_synonyms(knowledge) if isinstance(knowledge, str) and knowledge in list_synonyms() else {}
