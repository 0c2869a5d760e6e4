"""Retrievers: scores of passages for a query. Custom ones are classes registered as ``"retriever"``."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmfusion import registry
from mmfusion.registry import register
from mmfusion.text.words import words


class Retriever(Protocol):
    """Scores of all passages for a query.

    Attributes:
        reads_sentences: Whether queries should be sentences rather than bare words.
    """

    reads_sentences: bool

    def scores(self, query: str) -> NDArray[np.float64]:
        """(passages,) scores; larger is more similar, and 0 means nothing in common."""


@register("retriever", "bm25")
class BM25:
    """Okapi BM25 in Lucene's form (Robertson et al. 1994; Kamphuis et al. 2020), by the library bm25s.

    Args:
        texts: The passages.
        tags: Further terms of each passage.
        k1: Saturation of repeated words; small values saturate early.
        b: Length normalization from 0 (none) to 1 (full).

    Raises:
        ImportError: bm25s is not installed.
    """

    reads_sentences = False

    def __init__(
        self, texts: Sequence[str], tags: Sequence[Sequence[str]] | None = None, *, k1: float = 1.5, b: float = 0.75
    ) -> None:
        try:
            import bm25s
        except ImportError as error:
            raise ImportError('retriever="bm25" needs bm25s: pip install "mmfusion[narrative]"') from error
        self._index = bm25s.BM25(k1=k1, b=b, method="lucene", dtype="float64")
        tokens = [words(text) for text in _tagged(texts, tags)]
        self._vocabulary = {word for text in tokens for word in text}
        self._count = len(texts)
        if self._vocabulary:
            self._index.index(tokens, show_progress=False)

    def scores(self, query: str) -> NDArray[np.float64]:
        """(passages,) scores, 0 without a word in common."""
        # sorted, so that the sum does not depend on the order of the words
        known = sorted(word for word in words(query) if word in self._vocabulary)
        return np.asarray(self._index.get_scores(known) if known else np.zeros(self._count), dtype=np.float64)


@register("retriever", "tfidf")
class Tfidf:
    """Cosine of TF-IDF vectors with smoothed document frequencies, by scikit-learn.

    Args:
        texts: The passages.
        tags: Further terms of each passage.
    """

    reads_sentences = False

    def __init__(self, texts: Sequence[str], tags: Sequence[Sequence[str]] | None = None) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        texts = _tagged(texts, tags)
        self._vectorizer: Any = TfidfVectorizer(analyzer=words, dtype=np.float64)
        self._vectors = self._vectorizer.fit_transform(texts) if any(map(words, texts)) else None
        self._count = len(texts)

    def scores(self, query: str) -> NDArray[np.float64]:
        """(passages,) cosines, 0 without a word in common."""
        if self._vectors is None:
            return np.zeros(self._count)
        return (self._vectors @ self._vectorizer.transform([query]).T).toarray().ravel()


@register("retriever", "dense")
class Dense:
    """Cosine of sentence vectors, s_j = cos(e(x), e(d_j)).

    Args:
        texts: The passages.
        tags: Ignored: a list of words is not a sentence, and would attract every query to passages with many tags.
        encoder: ``minilm`` (in ``mmfusion[offline]``, made for this), a transformers folder or a Hub id.
        batch_size: Number of passages encoded at once.

    Raises:
        RuntimeError, ImportError, ValueError: The encoder is unavailable; the message says how to get it.
    """

    reads_sentences = True

    def __init__(
        self,
        texts: Sequence[str],
        tags: Sequence[Sequence[str]] | None = None,
        *,
        encoder: str = "minilm",
        batch_size: int = 32,
    ) -> None:
        from mmfusion.text.tokenizer import load_tokenizer
        from mmfusion.towers import TextTower

        self._tokenizer = load_tokenizer(encoder)
        self._tower = TextTower(encoder, weights="default", pooling="mean").eval()
        parts = [self._embed(texts[start : start + batch_size]) for start in range(0, len(texts), batch_size)]
        self._vectors = np.concatenate(parts) if parts else np.zeros((0, self._tower.num_features))

    def scores(self, query: str) -> NDArray[np.float64]:
        """(passages,) cosines in [-1, 1]; 0 for an empty query."""
        return self._vectors @ self._embed([query])[0] if query.strip() else np.zeros(len(self._vectors))

    def _embed(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """(n, D) mean of the token vectors, of length one."""
        import torch

        most = self._tower.max_length or 512
        encoded = self._tokenizer(list(texts), padding=True, truncation=True, max_length=most, return_tensors="pt")
        with torch.inference_mode():
            pooled = self._tower(encoded["input_ids"], encoded["attention_mask"]).pooled.double()
        return torch.nn.functional.normalize(pooled, dim=-1).numpy()


def _tagged(texts: Sequence[str], tags: Sequence[Sequence[str]] | None) -> list[str]:
    return [" ".join([text, *own]) for text, own in zip(texts, tags or [()] * len(texts), strict=True)]


def create_retriever(
    name: str, texts: Sequence[str], tags: Sequence[Sequence[str]] | None = None, **arguments: Any
) -> Retriever:
    """Create a retriever over passages.

    Args:
        name: ``bm25``, ``tfidf``, ``dense``, or a name registered as ``"retriever"``.
        texts: Texts to find.
        tags: Further search terms of each text; the dense retriever ignores them.
        arguments: Keywords of the retriever.

    Raises:
        ValueError: Unknown name.
        TypeError: The retriever has no such keyword.
    """
    return registry.create("retriever", name, texts, tags, **arguments)
