"""A patient's narrative: a sentence from metadata, the patient's own text, retrieved passages."""

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
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
    """A passage of a narrative.

    Attributes:
        id: Id of the passage.
        score: Similarity to the query, times the passage's weight.
        weight: Share among the retrieved passages; they sum to 1.
        text: The sentences in the narrative; empty if the budget had no room.
    """

    id: str
    score: float
    weight: float
    text: str


@dataclass(frozen=True)
class Narrative:
    """A narrative and its sources.

    Attributes:
        text: The whole narrative.
        query: The text that the passages were retrieved by.
        passages: The retrieved passages, by descending weight.
        removed: Label words removed from the patient's part.
    """

    text: str
    query: str
    passages: tuple[Retrieved, ...] = ()
    removed: tuple[str, ...] = ()


class Narrator:
    """x' = [x; sum_j w_j d_j]: the patient's text x, then the top passages d_j by descending weight w_j.

    The query consists of the metadata that the template names, never of free text, whose author may have known the
    diagnosis. Lexical retrievers search for the values, for a value of several words also as one term
    (``lower extremity`` finds the tag of that name, not ``upper extremity``), and for numbers by decade (age 47:
    ``40s``); the dense one searches with the template's sentence. The same row always gives the same narrative. The
    weights order the passages and divide the token budget among them: each passage gets whole sentences up to its
    share, and the rest goes to the next sentences in order of weight.

    Args:
        template: Sentence made from metadata, with ``{column}`` fields (:func:`mmfusion.data.render`).
        retriever: ``bm25``, ``tfidf``, ``dense``, or a registered name.
        top_k: Maximum number of passages; passages without a match are not used.
        knowledge: Shipped name, file, or passages (or plain texts); None appends nothing.
        guard: Guard against label words; None uses the synonyms of the shipped knowledge and the leaking columns.
        on_leak: ``remove`` takes label words out of metadata and free text, sentences with label words out of passages,
            and leaking columns out of the template; ``refuse`` raises instead.
        weighting: ``softmax``, w = softmax(s / temperature); or ``share``, w = s / sum(s).
        temperature: Scale of the softmax; small values favor the best passage.
        max_tokens: Budget of the text, with the tokenizer's special tokens. The patient's part is never cut.
        tokenizer: Transformers tokenizer that counts the tokens; None counts words.
        missing_values: Texts (any case) that count as missing in metadata.
        retriever_args: Keywords of the retriever, such as ``{"encoder": "minilm"}`` of the dense one.

    Attributes:
        passages: The passages that can be retrieved, after the guard.
        removed: Passage id -> label words for which it lost a sentence, or was dropped.
        dropped_columns: Leaking columns that the template named.

    Raises:
        ValueError: An argument out of range, no field left in the template, or a leak with ``on_leak="refuse"``.
        FileNotFoundError: The knowledge file does not exist.
        ImportError: The retriever's library is not installed; the message has the line that installs it.
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
        for is_right, message in (
            (on_leak in ("remove", "refuse"), f"on_leak={on_leak!r} is not one of 'remove', 'refuse'."),
            (weighting in ("softmax", "share"), f"weighting={weighting!r} is not one of 'softmax', 'share'."),
            (top_k >= 0, f"top_k={top_k} must be at least 0."),
            (temperature > 0, f"temperature={temperature} must be above 0."),
            (max_tokens is None or max_tokens >= 1, f"max_tokens={max_tokens} must be at least 1."),
        ):
            if not is_right:
                raise ValueError(message)
        self.template, self.top_k, self.on_leak = template, top_k, on_leak
        self.weighting, self.temperature = weighting, temperature
        self.max_tokens, self.tokenizer = max_tokens, tokenizer
        shipped = isinstance(knowledge, str) and knowledge in list_synonyms()
        self.guard = guard or LeakGuard(synonyms=read_synonyms(str(knowledge)) if shipped else {})
        missing_values = DatasetConfig().missing_values if missing_values is None else missing_values
        self.missing_values = [value.lower() for value in missing_values]
        self.dropped_columns = self._leaking_fields()
        self.removed: dict[str, list[str]] = {}
        self.passages = self._guarded(_passages(knowledge))
        self._found: dict[str, tuple[Retrieved, ...]] = {}
        # The retriever is created even without passages, so that a wrong name is always an error.
        texts = [passage.text for passage in self.passages]
        tags = [["".join(words(tag)) for tag in passage.tags] for passage in self.passages]
        self._retriever = create_retriever(retriever, texts, tags, **(retriever_args or {}))

    @property
    def fields(self) -> list[str]:
        """Metadata columns that narratives read."""
        return [name for name in template_fields(self.template) if name not in self.dropped_columns]

    def __call__(self, row: Mapping[str, Any]) -> str:
        """The text of a row's narrative; see :meth:`narrate`."""
        return self.narrate(row).text

    def narrate(self, row: Mapping[str, Any]) -> Narrative:
        """Write the narrative of a row.

        Args:
            row: Metadata columns, and the patient's own words in ``text``, if any. A column that the row lacks is
                missing.

        Raises:
            ValueError: A label word in the row with ``on_leak="refuse"``.
        """
        metadata = {name: row.get(name) for name in self.fields} | dict.fromkeys(self.dropped_columns)
        sentence = render(self.template, metadata, self.missing_values)
        patient = join_text(sentence, cell_text(row.get("text"))) or ""
        if self.on_leak == "refuse":
            self.guard.check(patient)
        removed = tuple(self.guard.find(patient))
        patient = self.guard.clean(patient)
        query = self._query(metadata, sentence)
        passages, text = self._cut(patient, self._search(query)), patient
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
        # a value of several words is also one term, like the tags
        terms = ["".join(words(value)) for value in present if len(words(value)) > 1]
        decades = [f"{int(float(value)) // 10 * 10}s" for value in present if re.fullmatch(r"\d+(\.\d+)?", value)]
        return " ".join([*present, *terms, *decades])

    def _search(self, query: str) -> tuple[Retrieved, ...]:
        """The top passages with their weights, uncut; cached, because rows often have the same metadata."""
        if query not in self._found:
            # Rounded, so that ties keep their order in the file on every machine.
            own = np.array([passage.weight for passage in self.passages])
            scores = np.round(self._retriever.scores(query) * own, 6)
            best = [int(i) for i in np.argsort(-scores, kind="stable")[: self.top_k] if scores[i] > 0]
            found = zip((self.passages[i] for i in best), scores[best], self._weights(scores[best]), strict=True)
            self._found[query] = tuple(Retrieved(p.id, float(score), float(w), p.text) for p, score, w in found)
        return self._found[query]

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        if not len(scores):
            return scores
        raw = scores if self.weighting == "share" else np.exp((scores - scores.max()) / self.temperature)
        return raw / raw.sum()

    def _cut(self, patient: str, passages: Sequence[Retrieved]) -> tuple[Retrieved, ...]:
        """The passages, each cut to the first whole sentences that fit its share of the budget."""
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
        cut = zip(passages, parts, taken, strict=True)
        return tuple(replace(passage, text=" ".join(part[:count])) for passage, part, count in cut)

    def _leaking_fields(self) -> list[str]:
        fields = template_fields(self.template)
        if self.on_leak == "refuse":
            self.guard.check_columns(fields)
        dropped = self.guard.leaking(fields)
        if dropped and len(dropped) == len(fields):
            self.guard.check_columns(fields)
        if dropped:
            logger.warning("The template names %s, which reveals the label; it is left out.", ", ".join(dropped))
        return dropped

    def _guarded(self, passages: Iterable[Passage]) -> list[Passage]:
        """The passages without sentences that contain label words; empty passages are dropped."""
        kept = []
        for passage in passages:
            found = list(dict.fromkeys(self.guard.find(passage.text)))
            if found and self.on_leak == "refuse":
                by = f"reveals the label by {', '.join(map(repr, found))}"
                raise ValueError(f"The passage {passage.id!r} {by}; rewrite it, or set on_leak to 'remove'.")
            if found:
                self.removed[passage.id] = found
            if text := self.guard.clean(passage.text, unit="sentence"):
                kept.append(replace(passage, text=text))
        return kept


def _passages(knowledge: str | Path | Iterable[Passage | str] | None) -> list[Passage]:
    if knowledge is None:
        return []
    if isinstance(knowledge, str | Path):
        return read_knowledge(knowledge)
    numbered = enumerate(knowledge, start=1)
    return [item if isinstance(item, Passage) else Passage(f"passage-{number}", item) for number, item in numbered]
