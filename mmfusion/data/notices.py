"""Counts of inputs that a model has not learned, logged as one line per kind by the main process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from mmfusion.text.tokenizer import cut, unknown_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: Number of distinct values that a line gives as examples.
EXAMPLES = 5


class NoticeKind(Enum):
    """Kinds of inputs unlike the training rows; the values follow "N of M rows" in a line."""

    UNKNOWN_WORD = "have words that the model's tokenizer does not know"
    CUT_TEXT = "are longer than the model's token budget and were cut"
    UNSEEN_CATEGORY = "have a value that is not among those learned in training"
    FAR_NUMBER = "have a number far outside the range of the training rows"
    UNREADABLE_NUMBER = "have a value that is not a number, read as missing"


class InputNotices:
    """Counts of inputs unlike the training rows over the rows of a table.

    Memory does not grow with the rows: only counts and a few examples of each kind are kept.

    Attributes:
        rows: Number of rows seen.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._rows: Counter[tuple[str, NoticeKind]] = Counter()
        self._values: Counter[tuple[str, NoticeKind]] = Counter()
        self._examples: dict[tuple[str, NoticeKind], dict[str, None]] = {}

    @property
    def kinds(self) -> set[NoticeKind]:
        """Kinds found in any column."""
        return {kind for _, kind in self._rows}

    def see(self, rows: int = 1) -> None:
        """Count rows that were checked, whatever was found."""
        self.rows += rows

    def add(self, kind: NoticeKind, column: str, *values: object) -> None:
        """Record one row.

        Args:
            kind: What is unlike the training rows.
            column: Name of the column, or ``text``.
            values: Values of the row; the first distinct ones become examples.
        """
        key = (column, kind)
        self._rows[key] += 1
        self._values[key] += len(values)
        self._remember(key, map(str, values))

    def update(self, other: InputNotices) -> None:
        """Add the counts of further rows."""
        self.rows += other.rows
        self._rows.update(other._rows)
        self._values.update(other._values)
        for key, examples in other._examples.items():
            self._remember(key, examples)

    def lines(self) -> list[str]:
        """One line per column and kind, in order of first occurrence.

        For example ``text: 12 of 500 rows have words that the model's tokenizer does not know (37, e.g. 'acral')``.
        """
        lines = []
        for (column, kind), rows in self._rows.items():
            examples = ", ".join(map(repr, self._examples[column, kind]))
            values = self._values[column, kind]
            count = f"{values:,}, " if values > rows else ""
            told = f" ({count}e.g. {examples})" if examples else ""
            share = f" ({rows / self.rows:.1%})" if kind is NoticeKind.CUT_TEXT else ""
            lines.append(f"{column}: {rows:,} of {self.rows:,} rows{share} {kind.value}{told}")
        return lines

    def _remember(self, key: tuple[str, NoticeKind], values: Iterable[str]) -> None:
        examples = self._examples.setdefault(key, {})
        for value in values:
            if len(examples) >= EXAMPLES:
                return
            examples[value] = None


def note_texts(
    notices: InputNotices, texts: Sequence[str | None], tokenizer: PreTrainedTokenizerFast | None, max_length: int
) -> None:
    """Record words unknown to a tokenizer and texts longer than the token budget.

    Args:
        notices: Counts to add to; the rows are not counted as seen.
        texts: Text of each row, or None.
        tokenizer: Tokenizer of the model; None records nothing.
        max_length: Token budget of a text, including special tokens.
    """
    if tokenizer is None:
        return
    repeats = Counter(text.strip() for text in texts if text)
    found = unknown_words(tokenizer, (cut(text, max_length) for text in repeats))
    for (text, rows), (words, length) in zip(repeats.items(), found, strict=True):
        for _ in range(rows if text else 0):
            if words:
                notices.add(NoticeKind.UNKNOWN_WORD, "text", *words)
            if length > max_length:
                notices.add(NoticeKind.CUT_TEXT, "text")
