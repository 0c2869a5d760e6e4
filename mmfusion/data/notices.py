"""Inputs unlike the training rows: counted in the main process, told in one line each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from mmfusion.text.tokenizer import cut, unknown_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

#: different values that a line gives as examples.
EXAMPLES = 5


class NoticeKind(Enum):
    """What can be unlike the training rows; the values follow "N of M rows" in a line."""

    UNKNOWN_WORD = "have words that the model's tokenizer does not know"
    CUT_TEXT = "are longer than the model's token budget and were cut"
    UNSEEN_CATEGORY = "have a value that is not among those learned in training"
    FAR_NUMBER = "have a number far outside the range of the training rows"
    UNREADABLE_NUMBER = "have something that is no number, read as missing"


class InputNotices:
    """Counts of what a model reads and has not learned, over the rows of a table.

    Memory does not grow with the rows: beside the counts there are a few examples of each kind.

    Attributes:
        rows: Number of rows looked at.
    """

    def __init__(self) -> None:
        self.rows = 0
        self._rows: Counter[tuple[str, NoticeKind]] = Counter()
        self._values: Counter[tuple[str, NoticeKind]] = Counter()
        self._examples: dict[tuple[str, NoticeKind], dict[str, None]] = {}

    def see(self, rows: int = 1) -> None:
        """Count rows that were looked at, whatever was found in them."""
        self.rows += rows

    def add(self, kind: NoticeKind, column: str, *values: object) -> None:
        """Note one row.

        Args:
            kind: What is unlike the training rows.
            column: Where: a column, or ``text``.
            values: What stands there; the first different ones become examples.
        """
        key = (column, kind)
        self._rows[key] += 1
        self._values[key] += len(values)
        self._remember(key, map(str, values))

    def update(self, other: InputNotices) -> None:
        """Add what was found in further rows."""
        self.rows += other.rows
        self._rows.update(other._rows)
        self._values.update(other._values)
        for key, examples in other._examples.items():
            self._remember(key, examples)

    def lines(self) -> list[str]:
        """What was found, one line for each column and kind, in the order in which they were first met.

        Such as ``text: 12 of 500 rows have words that the model's tokenizer does not know (37, e.g. 'acral')``.
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
    """Note words that a tokenizer does not know, and texts beyond the token budget.

    Args:
        notices: Where to note them; the rows are not counted as seen.
        texts: Text of each row; None where it has none.
        tokenizer: Tokenizer of the model; None notes nothing.
        max_length: Token budget of a text, special tokens included.
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
